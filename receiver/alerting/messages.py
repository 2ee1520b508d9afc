"""What is told of an incident, in plain words: what is, since when, what to do, where to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from receiver.alerting.follow import Incident, IncidentState
from receiver.alerting.notifiers import Notification
from receiver.alerting.rules import Alarm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo


RUNBOOK = "deploy/RUNBOOK.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageContext:
    """From where it is told, and how."""

    language: str
    zone: ZoneInfo  # of the times
    node: str
    status_url: str


def write_incident(incident: Incident, state: IncidentState, place: MessageContext) -> Notification:
    """Write what one target is told of an incident."""
    words, alarm = _LANGUAGES[place.language], incident.alarm
    title, what, advice = _words_of(incident, words)
    if alarm is Alarm.PLATFORM_SILENT and "last_week" in incident.evidence:
        what = words.silent_unrecorded
    if "lasts_hours" in incident.evidence and state is IncidentState.FIRING:
        what += words.spool_lasts
    evidence = {**incident.evidence, "subject": words.reasons.get(incident.subject, incident.subject)}
    head = words.heads[state if state is IncidentState.RECOVERED or alarm.critical else "warning"]
    lines = [f"[receiver] {head}{words.colon}{title.format_map(evidence)}", what.format_map(evidence)]
    if state is IncidentState.FIRING:
        lines += [words.since.format(_time(incident.since, place)), words.advice.format(advice)]
    else:
        ended = _time(incident.recovered_at or incident.since, place)
        lines.append(words.lasted.format(_time(incident.since, place), ended))
    lines.append(words.where.format(f"{RUNBOOK}#{alarm.heading.lower()}", place.status_url))
    lines.append(words.node.format(place.node))
    return Notification(text="\n".join(lines), fields=_fields(incident, state, place))


def title_of(incident: Incident, language: str) -> str:
    """Name an incident in a few words."""
    words = _LANGUAGES[language]
    subject = words.reasons.get(incident.subject, incident.subject)
    return _words_of(incident, words)[0].format_map({"subject": subject})


def _words_of(incident: Incident, words: _Words) -> tuple[str, str, str]:
    if incident.alarm is Alarm.CERTIFICATE_ENDS_NOW and "fault" in incident.evidence:
        return words.certificate_faulty
    if incident.alarm is Alarm.BACKUP_OLD and "failed" in incident.evidence:
        return words.backup_failed
    return words.alarms[incident.alarm]


def write_test(place: MessageContext) -> Notification:
    """Write a message that says it is a test."""
    words = _LANGUAGES[place.language]
    text = "\n".join([words.test, words.node.format(place.node)])
    return Notification(text=text, fields={"name": "test", "state": "test", "severity": "none", "node": place.node})


def _fields(incident: Incident, state: IncidentState, place: MessageContext) -> Mapping[str, Any]:
    return {
        "name": incident.alarm,
        "subject": incident.subject,
        "state": state,
        "severity": "critical" if incident.alarm.critical else "warning",
        "since": incident.since.isoformat(),
        "recovered_at": incident.recovered_at and incident.recovered_at.isoformat(),
        "evidence": dict(incident.evidence),
        "node": place.node,
    }


def _time(moment: datetime, place: MessageContext) -> str:
    return f"{moment.astimezone(place.zone):%Y-%m-%d %H:%M:%S} ({place.zone.key})"


# --- The words --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Words:
    heads: Mapping[str, str]
    colon: str
    since: str
    lasted: str
    advice: str
    where: str
    node: str
    test: str
    reasons: Mapping[str, str]  # for which a push is refused
    silent_unrecorded: str
    spool_lasts: str
    certificate_faulty: tuple[str, str, str]
    backup_failed: tuple[str, str, str]
    alarms: Mapping[Alarm, tuple[str, str, str]]  # title, what is, what to do


_ENGLISH = _Words(
    heads={"firing": "ALARM", "warning": "WARNING", "recovered": "OVER"},
    colon=": ",
    since="Since: {}",
    lasted="It lasted from {} to {}.",
    advice="To do: {}",
    where="Where: {}, {}",
    node="Told by: {}",
    test="[receiver] TEST: this is a test of the alarms; nothing is wrong.",
    reasons={
        "secret": "wrong secret",
        "address": "address not allowed",
        "length": "wrong length",
        "size": "too large",
        "timeout": "not whole after 20 s",
        "head": "head too large or malformed",
    },
    silent_unrecorded="The platform has pushed nothing for over an hour; last week {last_week} came in that time.",
    spool_lasts=" At the present rate it has room for {lasts_hours} hours more.",
    certificate_faulty=(
        "the certificate is not accepted",
        "The certificate of RECEIVER_PUBLIC_URL is not accepted: {fault}. No push arrives.",
        "`receiver doctor --public-url` says more; put the right certificate with its whole chain in place.",
    ),
    backup_failed=(
        "the backup has failed: {subject}",
        "The last try of `{subject}` has failed; older backups are untouched.",
        "read `journalctl -u receiver-backup`, or run it by hand: it says why.",
    ),
    alarms={
        Alarm.SERVER_DOWN: (
            "the server does not take pushes",
            "{fault}. Pushes of the platform may be lost.",
            "start the server (systemctl start receiver), and read its log.",
        ),
        Alarm.DATABASE_AWAY: (
            "the database is away",
            "{fault}. Pushes go to the spool, which is bounded.",
            "bring the database back; the spool is saved by itself then.",
        ),
        Alarm.SPOOL_GROWING: (
            "the spool grows",
            "{bytes} bytes wait for the database ({percent} % of what may), the oldest for {minutes} minutes.",
            "look at the database; where it is well, run `receiver spool status` and read the server's log.",
        ),
        Alarm.PUSHES_REFUSED: (
            "pushes are refused: {subject}",
            "{count} in the last 15 minutes were refused: {subject}.",
            "a stranger's, while receipts come as usual. Else compare the platform's console with `receiver push-url`.",
        ),
        Alarm.EVENTS_HELD_BACK: (
            "the events are held back",
            "A transaction that does not end has held newer events back for {minutes} minutes.",
            "find it in pg_stat_activity, and end it with pg_terminate_backend.",
        ),
        Alarm.ROWS_SET_ASIDE: (
            "rows of {subject} are left out",
            "{count} rows of {subject} cannot be read, or have an impossible time; all else goes on. Ids: {ids}.",
            "restore them from a backup, or erase what they are about; the log says of each what is wrong.",
        ),
        Alarm.WEBHOOKS_BEHIND: (
            "a system of your own does not hear: {subject}",
            "What is to be forwarded to {subject} has waited for {minutes} minutes.",
            "`receiver webhooks list` says why: it is paused, or what it answers. Nothing is lost for three days.",
        ),
        Alarm.PLATFORM_SILENT: (
            "the platform is silent",
            "Five numbers or more have waited for a receipt for {minutes} minutes; nothing was pushed meanwhile.",
            "see that the push URL is in reach from outside; then call 400-68-10658 with the status page's evidence.",
        ),
        Alarm.PUSHES_QUARANTINED: (
            "pushes cannot be read",
            "{count} pushes of the last hour could not be read.",
            "look at them in the journal; once it is mended, run `receiver pushes replay --quarantined`.",
        ),
        Alarm.DELIVERY_FALLEN: (
            "fewer messages are delivered",
            "Of {messages} messages of the last 30 minutes {percent} % were delivered; usual are {usual} %.",
            "look for the template, operator or error that stands out in the delivery report.",
        ),
        Alarm.BALANCE_LOW: (
            "few messages are left: {subject}",
            "The account {subject} has {left} messages left, fewer than {low}.",
            "top the account up.",
        ),
        Alarm.BALANCE_STALE: (
            "the balance is not read: {subject}",
            "The balance of {subject} was last read {hours} hours ago.",
            "run `receiver run balance` and see what it says; see that its timer runs.",
        ),
        Alarm.CERTIFICATE_ENDS_SOON: (
            "the certificate ends soon",
            "The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days.",
            "renew it, and see why it was not renewed by itself.",
        ),
        Alarm.CERTIFICATE_ENDS_NOW: (
            "the certificate ends",
            "The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days; after that no push arrives.",
            "renew it now.",
        ),
        Alarm.REPLICA_BEHIND: (
            "the replica is behind",
            "The replica is {seconds} seconds behind the primary.",
            "look at its replication; what reads from it sees the past. \u221e: it is away, and the primary is read.",
        ),
        Alarm.DISK_NEARLY_FULL: (
            "the disk is nearly full",
            "The disk of the data directory has {free_gb} GB left ({percent} %). Once it is full, pushes are refused.",
            "make room, or give it a larger disk; `df -h` and `du -xh` say what fills it.",
        ),
        Alarm.BACKUP_OLD: (
            "the last backup is old: {subject}",
            "The last backup by `{subject}` is of {made_at}; one is due each day.",
            "see that receiver-backup.timer runs (`systemctl list-timers`), and make one now.",
        ),
        Alarm.AUDIT_SYSLOG_LAG: (
            "the audit is not sent on",
            "Entries of the audit have waited for the syslog server for {minutes} minutes; none is lost.",
            "see that the server of RECEIVER_AUDIT_SYSLOG can be reached; the server's log says why not.",
        ),
    },
)  # fmt: skip

_CHINESE = _Words(
    heads={"firing": "告警", "warning": "预警", "recovered": "已恢复"},
    colon="：",
    since="开始时间：{}",
    lasted="从 {} 持续到 {}。",
    advice="处理：{}",
    where="查看：{}，{}",
    node="来自：{}",
    test="[receiver] 测试：这是一条告警测试消息，系统没有问题。",
    reasons={
        "secret": "密钥错误",
        "address": "来源地址不允许",
        "length": "长度错误",
        "size": "内容过大",
        "timeout": "20 秒内未收到完整请求",
        "head": "请求头过大或格式错误",
    },
    silent_unrecorded="平台已超过一小时没有任何推送；上周同一时段有 {last_week} 条推送。",
    spool_lasts="按目前的速度，剩余容量还可用约 {lasts_hours} 小时。",
    certificate_faulty=(
        "证书不被信任",
        "RECEIVER_PUBLIC_URL 的证书未通过验证：{fault}。收不到任何推送。",
        "运行 `receiver doctor --public-url` 查看详情；换上正确的证书及完整的证书链。",
    ),
    backup_failed=(
        "备份失败：{subject}",
        "最近一次 `{subject}` 执行失败；之前的备份不受影响。",
        "查看 `journalctl -u receiver-backup`，或手动执行一次，即可看到原因。",
    ),
    alarms={
        Alarm.SERVER_DOWN: (
            "服务无法接收推送",
            "{fault}。平台的推送可能丢失。",
            "启动服务（systemctl start receiver），并查看其日志。",
        ),
        Alarm.DATABASE_AWAY: (
            "数据库不可用",
            "{fault}。推送暂存在本地队列（spool），其容量有限。",
            "恢复数据库；之后暂存的推送会自动入库。",
        ),
        Alarm.SPOOL_GROWING: (
            "暂存队列增长",
            "{bytes} 字节在等待数据库（占上限的 {percent} %），最早的已等待 {minutes} 分钟。",
            "检查数据库；若数据库正常，运行 `receiver spool status` 并查看服务日志。",
        ),
        Alarm.PUSHES_REFUSED: (
            "推送被拒绝：{subject}",
            "最近 15 分钟有 {count} 条推送被拒绝：{subject}。",
            "若回执照常到达，则是陌生来源；否则核对平台控制台中的推送地址与 `receiver push-url`。",
        ),
        Alarm.EVENTS_HELD_BACK: (
            "事件流被阻塞",
            "一个未结束的事务使新事件延迟了 {minutes} 分钟。",
            "在 pg_stat_activity 中找到它，用 pg_terminate_backend 结束。",
        ),
        Alarm.ROWS_SET_ASIDE: (
            "{subject} 表中有数据被跳过",
            "{subject} 表中有 {count} 行无法读取，或其时间不可能正确，已全部跳过，其余数据不受影响。ID：{ids}。",
            "从备份恢复这些行，或删除相关号码的数据；每一行的问题见日志。",
        ),
        Alarm.WEBHOOKS_BEHIND: (
            "自己的系统没有收到：{subject}",
            "要转发给 {subject} 的内容已等待 {minutes} 分钟。",
            "`receiver webhooks list` 会说明原因：已暂停，或它的应答。三天之内不会丢失。",
        ),
        Alarm.PLATFORM_SILENT: (
            "平台没有推送",
            "至少五个号码等待回执已超过 {minutes} 分钟，其间平台没有任何推送。",
            "确认推送地址可从外部访问；然后凭状态页的证据联系平台（400-68-10658）。",
        ),
        Alarm.PUSHES_QUARANTINED: (
            "推送无法解析",
            "最近一小时有 {count} 条推送无法解析。",
            "在推送日志中查看；修复后运行 `receiver pushes replay --quarantined`。",
        ),
        Alarm.DELIVERY_FALLEN: (
            "送达率下降",
            "最近 30 分钟的 {messages} 条短信送达率为 {percent} %，平时为 {usual} %。",
            "在送达报表中查找异常的模板、运营商或错误。",
        ),
        Alarm.BALANCE_LOW: (
            "余额不足：{subject}",
            "账户 {subject} 剩余 {left} 条，低于 {low} 条。",
            "给账户充值。",
        ),
        Alarm.BALANCE_STALE: (
            "余额未更新：{subject}",
            "账户 {subject} 的余额上次读取是 {hours} 小时前。",
            "运行 `receiver run balance` 查看结果；确认其定时任务在运行。",
        ),
        Alarm.CERTIFICATE_ENDS_SOON: (
            "证书即将到期",
            "RECEIVER_PUBLIC_URL 的证书还有 {days} 天有效。",
            "更新证书，并查明为何没有自动更新。",
        ),
        Alarm.CERTIFICATE_ENDS_NOW: (
            "证书马上到期",
            "RECEIVER_PUBLIC_URL 的证书还有 {days} 天有效；到期后收不到任何推送。",
            "立即更新证书。",
        ),
        Alarm.REPLICA_BEHIND: (
            "只读副本延迟",
            "只读副本落后主库 {seconds} 秒。",
            "检查复制状态；从副本读取的数据是旧的。\u221e 表示副本不可用，改读主库。",
        ),
        Alarm.DISK_NEARLY_FULL: (
            "磁盘空间不足",
            "数据目录所在磁盘仅剩 {free_gb} GB（{percent} %）。写满后将拒绝推送。",
            "清理磁盘或扩容；用 `df -h` 和 `du -xh` 查看占用。",
        ),
        Alarm.BACKUP_OLD: (
            "备份过旧：{subject}",
            "`{subject}` 最近一次备份的时间是 {made_at}；应每天备份一次。",
            "确认 receiver-backup.timer 在运行（`systemctl list-timers`），并立即备份一次。",
        ),
        Alarm.AUDIT_SYSLOG_LAG: (
            "审计记录未能转发",
            "审计记录等待发往 syslog 服务器已 {minutes} 分钟；记录不会丢失。",
            "确认 RECEIVER_AUDIT_SYSLOG 指定的服务器可以连通；原因见服务日志。",
        ),
    },
)  # fmt: skip
_LANGUAGES = {"en": _ENGLISH, "zh-CN": _CHINESE}
