"""The texts of alarms, as ids of the catalogue, and how they tell what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from receiver.alerting.rules import Alarm
from receiver.translations import N_, gettext_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.alerting.follow import Incident
    from receiver.alerting.rules import Finding


def describe(incident: Incident | Finding, language: str) -> str:
    """Return the title and what is wrong, as a line of a page."""
    title = title_of(incident, language)
    return gettext_of(language)("{what}: {why}").format(
        what=f"{title[:1].upper()}{title[1:]}", why=explain(incident, language)
    )


def explain(incident: Incident | Finding, language: str, *, forecasts: bool = True) -> str:
    """Return what is wrong, in a sentence or two. `forecasts`: also for how long the spool has room."""
    _, evidence = gettext_of(language), incident.evidence
    text = _(texts_of(incident.alarm, evidence).fault)
    what = text.format_map(_Evidence({**evidence, "subject": _subject(incident, language)}))
    if forecasts and "lasts_hours" in evidence:
        return _("{what} At the present rate the spool is full in {hours} hours.").format(
            what=what, hours=evidence["lasts_hours"]
        )
    return what


class _Evidence(dict[str, Any]):
    """Evidence that an older version kept may lack what today's text names."""

    def __missing__(self, name: str) -> str:
        return "?"


def title_of(incident: Incident | Finding, language: str) -> str:
    """Return the title of an incident, or of a finding."""
    title = gettext_of(language)(texts_of(incident.alarm, incident.evidence).title)
    return title.format(subject=_subject(incident, language))


def _subject(incident: Incident | Finding, language: str) -> str:
    subject = incident.subject
    return gettext_of(language)(_REFUSALS[subject]) if subject in _REFUSALS else subject


def every_text_of(alarm: Alarm) -> list[AlarmTexts]:
    """Return the usual texts of an alarm, and its others."""
    return [_TEXTS[alarm], *([_VARIANTS[alarm][1]] if alarm in _VARIANTS else [])]


def texts_of(alarm: Alarm, evidence: Mapping[str, Any]) -> AlarmTexts:
    """Return the texts of an alarm that go with its evidence."""
    name, texts = _VARIANTS.get(alarm, ("", _TEXTS[alarm]))
    return texts if name in evidence else _TEXTS[alarm]


class AlarmTexts(NamedTuple):
    """The texts of an alarm; the figures of its evidence stand in braces."""

    title: str
    fault: str
    remedy: str


# Why pushes are refused, by the reason in the metrics.
_REFUSALS = {
    "secret": N_("wrong secret"),
    "address": N_("address not allowed"),
    "length": N_("wrong length"),
    "size": N_("too large"),
    "timeout": N_("incomplete after 20 s"),
    "head": N_("head too large or malformed"),
}
_TEXTS: Mapping[Alarm, AlarmTexts] = {
    Alarm.SERVER_DOWN: AlarmTexts(
        N_("the server accepts no pushes"),
        N_("{fault}. The platform's pushes may be lost."),
        N_("start the server (systemctl start receiver) and check its log."),
    ),
    Alarm.DATABASE_AWAY: AlarmTexts(
        N_("the database is unavailable"),
        N_("{fault}. Pushes go to the spool, which has a size limit."),
        N_("restore the database; the spool then drains automatically."),
    ),
    Alarm.SPOOL_GROWING: AlarmTexts(
        N_("the spool is growing"),
        N_("{bytes} bytes are spooled (of the limit: {percent} %), the oldest for {minutes} minutes."),
        N_("check the database; if it is healthy, run `receiver spool status` and check the server's log."),
    ),
    Alarm.PUSHES_REFUSED: AlarmTexts(
        N_("pushes are refused: {subject}"),
        N_("{count} pushes were refused in the last 15 minutes: {subject}."),
        N_("if receipts still arrive, it is a third party. Else compare the platform's URL with `receiver push-url`."),
    ),
    Alarm.PROJECTION_BEHIND: AlarmTexts(
        N_("the projection is behind"),
        N_("Pushes stored {minutes} minutes ago are not yet in lists, events and webhooks. None is lost."),
        N_("check the database's load, and pg_stat_activity for a transaction that does not end."),
    ),
    Alarm.ROWS_SET_ASIDE: AlarmTexts(
        N_("rows of {subject} are skipped"),
        N_("{count} rows of {subject} are unreadable or have an impossible time; others are unaffected. IDs: {ids}."),
        N_("restore them from a backup, or erase their numbers; the log has the fault of each row."),
    ),
    Alarm.WEBHOOKS_BEHIND: AlarmTexts(
        N_("webhook deliveries are delayed: {subject}"),
        N_("Deliveries to the endpoint {subject} have been pending for {minutes} minutes."),
        N_("`receiver webhooks list` shows its last error, or that it is paused. Nothing is lost for three days."),
    ),
    Alarm.PLATFORM_SILENT: AlarmTexts(
        N_("the platform is silent"),
        N_("At least five numbers have waited {minutes} minutes for a receipt; the platform has pushed nothing."),
        N_("check that the push URL is reachable from outside; then call 400-68-10658 with the status page's data."),
    ),
    Alarm.PUSHES_QUARANTINED: AlarmTexts(
        N_("pushes are quarantined"),
        N_("{count} pushes of the last hour could not be parsed."),
        N_("check them in the journal; once the cause is fixed, run `receiver pushes replay --quarantined`."),
    ),
    Alarm.DELIVERY_FALLEN: AlarmTexts(
        N_("the delivery rate has fallen"),
        N_("Of {messages} messages in the last 30 minutes, {percent} % were delivered; usual: {usual} %."),
        N_("check the delivery report for an unusual template, operator or error."),
    ),
    Alarm.BALANCE_LOW: AlarmTexts(
        N_("balance is low: {subject}"),
        N_("The account {subject} has {left} messages left, fewer than {low}."),
        N_("top the account up."),
    ),
    Alarm.BALANCE_STALE: AlarmTexts(
        N_("balance is out of date: {subject}"),
        N_("The balance of {subject} was last read {hours} hours ago."),
        N_("run `receiver run balance` and check its output; check that its timer runs."),
    ),
    Alarm.CERTIFICATE_ENDS_SOON: AlarmTexts(
        N_("the certificate expires soon"),
        N_("The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days."),
        N_("renew it, and find out why automatic renewal failed."),
    ),
    Alarm.CERTIFICATE_ENDS_NOW: AlarmTexts(
        N_("the certificate is about to expire"),
        N_("The certificate of RECEIVER_PUBLIC_URL is valid for {days} more days; after that no push arrives."),
        N_("renew it now."),
    ),
    Alarm.REPLICA_BEHIND: AlarmTexts(
        N_("the replica is behind"),
        N_("The replica is {seconds} seconds behind the primary."),
        N_("check its replication; queries on it return old data. \u221e: it is unavailable, and the primary is read."),
    ),
    Alarm.DISK_NEARLY_FULL: AlarmTexts(
        N_("the disk is nearly full"),
        N_("The disk of the data directory has {free_gb} GB left ({percent} %). When it is full, pushes are refused."),
        N_("free space or enlarge the disk; `df -h` and `du -xh` show what uses it."),
    ),
    Alarm.BACKUP_OLD: AlarmTexts(
        N_("the last backup is too old: {subject}"),
        N_("The last backup by `{subject}` was made at {made_at}; one is due every day."),
        N_("check that receiver-backup.timer runs (`systemctl list-timers`), and make a backup now."),
    ),
    Alarm.AUDIT_SYSLOG_LAG: AlarmTexts(
        N_("the audit log is not sent to syslog"),
        N_("Audit entries have waited {minutes} minutes for the syslog server; none is lost."),
        N_("check that the server of RECEIVER_AUDIT_SYSLOG is reachable; the receiver's log has the error."),
    ),
}
# Its other texts, where its evidence has the name beside them.
_VARIANTS: Mapping[Alarm, tuple[str, AlarmTexts]] = {
    Alarm.PLATFORM_SILENT: (
        "last_week",
        _TEXTS[Alarm.PLATFORM_SILENT]._replace(
            fault=N_("The platform has pushed nothing for over an hour; last week it pushed {last_week} in that time.")
        ),
    ),
    Alarm.CERTIFICATE_ENDS_NOW: (
        "fault",
        AlarmTexts(
            N_("the certificate is invalid"),
            N_("The certificate of RECEIVER_PUBLIC_URL is invalid: {fault}. No push arrives."),
            N_("run `receiver doctor --public-url` for details; install the right certificate with its full chain."),
        ),
    ),
    Alarm.BACKUP_OLD: (
        "failed",
        AlarmTexts(
            N_("backup failed: {subject}"),
            N_("The last run of `{subject}` failed; older backups are untouched."),
            N_("see `journalctl -u receiver-backup`, or run it by hand, for the reason."),
        ),
    ),
}
