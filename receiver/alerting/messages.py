"""The texts of notifications: the fault, its start, the remedy, and links."""

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

    from receiver.alerting.rules import Finding

RUNBOOK = "deploy/RUNBOOK.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageContext:
    """Language, time zone, node and status page of a message."""

    language: str
    zone: ZoneInfo  # of the times
    node: str
    status_url: str


def write_incident(incident: Incident, state: IncidentState, place: MessageContext) -> Notification:
    """Return the message for the start or end of an incident."""
    words, alarm = _LANGUAGES[place.language], incident.alarm
    advice = _texts_of(incident.alarm, incident.evidence, words)[2]
    head = words.heads[state if state is IncidentState.RECOVERED or alarm.critical else "warning"]
    lines = [
        f"[receiver] {head}{words.colon}{title_of(incident, place.language)}",
        explain(incident, place.language, forecasts=state is IncidentState.FIRING),
    ]
    if state is IncidentState.FIRING:
        lines += [words.since.format(_time(incident.since, place)), words.advice.format(advice)]
    else:
        ended = _time(incident.recovered_at or incident.since, place)
        lines.append(words.lasted.format(_time(incident.since, place), ended))
    lines.append(words.where.format(f"{RUNBOOK}#{alarm.heading.lower()}", place.status_url))
    lines.append(words.node.format(place.node))
    return Notification(text="\n".join(lines), fields=_fields(incident, state, place))


def describe(incident: Incident | Finding, language: str) -> str:
    """Return the title and what is wrong, as a line of a page."""
    title = title_of(incident, language)
    return f"{title[:1].upper()}{title[1:]}{_LANGUAGES[language].colon}{explain(incident, language)}"


def explain(incident: Incident | Finding, language: str, *, forecasts: bool = True) -> str:
    """Return what is wrong, in a sentence or two. `forecasts`: also for how long the spool has room."""
    words, evidence = _LANGUAGES[language], incident.evidence
    what = _texts_of(incident.alarm, evidence, words)[1]
    if incident.alarm is Alarm.PLATFORM_SILENT and "last_week" in evidence:
        what = words.silent_unrecorded
    if forecasts and "lasts_hours" in evidence:
        what += words.spool_lasts
    return what.format_map({**evidence, "subject": words.reasons.get(incident.subject, incident.subject)})


def title_of(incident: Incident | Finding, language: str) -> str:
    """Return the title of an incident, or of a finding."""
    words = _LANGUAGES[language]
    subject = words.reasons.get(incident.subject, incident.subject)
    return _texts_of(incident.alarm, incident.evidence, words)[0].format_map({"subject": subject})


def _texts_of(alarm: Alarm, evidence: Mapping[str, Any], words: _Words) -> tuple[str, str, str]:
    if alarm is Alarm.CERTIFICATE_ENDS_NOW and "fault" in evidence:
        return words.certificate_faulty
    if alarm is Alarm.BACKUP_OLD and "failed" in evidence:
        return words.backup_failed
    return words.alarms[alarm]


def write_test(place: MessageContext) -> Notification:
    """Return a test message."""
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


# --- The texts --------------------------------------------------------------------------------------------


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
    reasons: Mapping[str, str]  # why pushes are refused
    silent_unrecorded: str
    spool_lasts: str
    certificate_faulty: tuple[str, str, str]
    backup_failed: tuple[str, str, str]
    alarms: Mapping[Alarm, tuple[str, str, str]]  # title, fault, remedy


_ENGLISH = _Words(
    heads={"firing": "ALARM", "warning": "WARNING", "recovered": "RESOLVED"},
    colon=": ",
    since="Since: {}",
    lasted="It lasted from {} to {}.",
    advice="Action: {}",
    where="Details: {}, {}",
    node="Node: {}",
    test="[receiver] TEST: this is a test alarm; nothing is wrong.",
    reasons={
        "secret": "wrong secret",
        "address": "address not allowed",
        "length": "wrong length",
        "size": "too large",
        "timeout": "incomplete after 20 s",
        "head": "head too large or malformed",
    },
    silent_unrecorded="The platform has pushed nothing for over an hour; last week it pushed {last_week} in that time.",
    spool_lasts=" At the present rate the spool is full in {lasts_hours} hours.",
    certificate_faulty=(
        "the certificate is invalid",
        "The certificate of RECEIVER_PUBLIC_URL is invalid: {fault}. No push arrives.",
        "run `receiver doctor --public-url` for details; install the right certificate with its full chain.",
    ),
    backup_failed=(
        "backup failed: {subject}",
        "The last run of `{subject}` failed; older backups are untouched.",
        "see `journalctl -u receiver-backup`, or run it by hand, for the reason.",
    ),
    alarms={
        Alarm.SERVER_DOWN: (
            "the server accepts no pushes",
            "{fault}. The platform's pushes may be lost.",
            "start the server (systemctl start receiver) and check its log.",
        ),
        Alarm.DATABASE_AWAY: (
            "the database is unavailable",
            "{fault}. Pushes go to the spool, which has a size limit.",
            "restore the database; the spool then drains automatically.",
        ),
        Alarm.SPOOL_GROWING: (
            "the spool is growing",
            "{bytes} bytes are spooled ({percent} % of the limit), the oldest for {minutes} minutes.",
            "check the database; if it is healthy, run `receiver spool status` and check the server's log.",
        ),
        Alarm.PUSHES_REFUSED: (
            "pushes are refused: {subject}",
            "{count} pushes were refused in the last 15 minutes: {subject}.",
            "if receipts still arrive, it is a third party. Else compare the platform's URL with `receiver push-url`.",
        ),
        Alarm.PROJECTION_BEHIND: (
            "the projection is behind",
            "Pushes stored {minutes} minutes ago are not yet in lists, events and webhooks. None is lost.",
            "check the database's load, and pg_stat_activity for a transaction that does not end.",
        ),
        Alarm.ROWS_SET_ASIDE: (
            "rows of {subject} are skipped",
            "{count} rows of {subject} are unreadable or have an impossible time; others are unaffected. IDs: {ids}.",
            "restore them from a backup, or erase their numbers; the log has the fault of each row.",
        ),
        Alarm.WEBHOOKS_BEHIND: (
            "webhook deliveries are delayed: {subject}",
            "Deliveries to the endpoint {subject} have been pending for {minutes} minutes.",
            "`receiver webhooks list` shows its last error, or that it is paused. Nothing is lost for three days.",
        ),
        Alarm.PLATFORM_SILENT: (
            "the platform is silent",
            "At least five numbers have waited {minutes} minutes for a receipt; the platform has pushed nothing.",
            "check that the push URL is reachable from outside; then call 400-68-10658 with the status page's data.",
        ),
        Alarm.PUSHES_QUARANTINED: (
            "pushes are quarantined",
            "{count} pushes of the last hour could not be parsed.",
            "check them in the journal; once the cause is fixed, run `receiver pushes replay --quarantined`.",
        ),
        Alarm.DELIVERY_FALLEN: (
            "the delivery rate has fallen",
            "Of {messages} messages in the last 30 minutes, {percent} % were delivered; {usual} % is usual.",
            "check the delivery report for an unusual template, operator or error.",
        ),
        Alarm.BALANCE_LOW: (
            "balance is low: {subject}",
            "The account {subject} has {left} messages left, fewer than {low}.",
            "top the account up.",
        ),
        Alarm.BALANCE_STALE: (
            "balance is out of date: {subject}",
            "The balance of {subject} was last read {hours} hours ago.",
            "run `receiver run balance` and check its output; check that its timer runs.",
        ),
        Alarm.CERTIFICATE_ENDS_SOON: (
            "the certificate expires soon",
            "The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days.",
            "renew it, and find out why automatic renewal failed.",
        ),
        Alarm.CERTIFICATE_ENDS_NOW: (
            "the certificate is about to expire",
            "The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days; after that no push arrives.",
            "renew it now.",
        ),
        Alarm.REPLICA_BEHIND: (
            "the replica is behind",
            "The replica is {seconds} seconds behind the primary.",
            "check its replication; queries on it return old data. \u221e: it is unavailable, and the primary is read.",
        ),
        Alarm.DISK_NEARLY_FULL: (
            "the disk is nearly full",
            "The disk of the data directory has {free_gb} GB left ({percent} %). When it is full, pushes are refused.",
            "free space or enlarge the disk; `df -h` and `du -xh` show what uses it.",
        ),
        Alarm.BACKUP_OLD: (
            "the last backup is too old: {subject}",
            "The last backup by `{subject}` was made at {made_at}; one is due every day.",
            "check that receiver-backup.timer runs (`systemctl list-timers`), and make a backup now.",
        ),
        Alarm.AUDIT_SYSLOG_LAG: (
            "the audit log is not sent to syslog",
            "Audit entries have waited {minutes} minutes for the syslog server; none is lost.",
            "check that the server of RECEIVER_AUDIT_SYSLOG is reachable; the receiver's log has the error.",
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
        "证书无效",
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
            "若回执照常到达，则来自第三方；否则核对平台控制台中的推送地址与 `receiver push-url`。",
        ),
        Alarm.PROJECTION_BEHIND: (
            "数据处理滞后",
            "{minutes} 分钟前保存的推送尚未出现在列表、事件流和 webhook 中。推送没有丢失。",
            "检查数据库负载，并在 pg_stat_activity 中查找长时间未结束的事务。",
        ),
        Alarm.ROWS_SET_ASIDE: (
            "{subject} 表中有数据被跳过",
            "{subject} 表中有 {count} 行无法读取或时间不合理，已跳过，其余数据不受影响。ID：{ids}。",
            "从备份恢复这些行，或删除相关号码的数据；每一行的问题见日志。",
        ),
        Alarm.WEBHOOKS_BEHIND: (
            "Webhook 投递延迟：{subject}",
            "发往接收端 {subject} 的投递已积压 {minutes} 分钟。",
            "运行 `receiver webhooks list` 查看是否已暂停，以及最近的错误。三天之内不会丢失。",
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
