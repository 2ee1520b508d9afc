"""The table of the settings. Environment, env.example and the reference pages follow from it.

A new setting is a field with its default as the environment would give it, its parser, and its meaning below. Then
`make reference` writes what is generated, and names the texts that have no Chinese yet. The field is also the
variable's name (`push_lane` is RECEIVER_PUSH_LANE), unless `name` says another.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from receiver.config import parsers as to
from receiver.core import OPT_OUT_PHRASES, OPT_OUT_WORDS, LogFormat, OptOutWords

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from zoneinfo import ZoneInfo

    from receiver.config.parsers import Network

_MODE = to.choice({"enforce": True, "observe": False})
_LOG_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
PUSH_SECRET_FILE = "push-secret"  # noqa: S105  (a file name)
SPOOL_DIR = "spool"
CHECKPOINTS_FILE = "audit.anchors"


class SecondFactor(StrEnum):
    """The values of RECEIVER_CONSOLE_TOTP."""

    AUTO = "auto"
    REQUIRED = "required"
    OPTIONAL = "optional"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How the environment gives a field of Settings."""

    name: str  # of the variable
    default: str
    parse: Callable[[str], Any]
    secret: bool  # belongs into a file, and is never shown
    section: str  # of the reference page, if it begins here


def _setting(
    default: str, parse: Callable[[str], Any], *, name: str = "", secret: bool = False, section: str = ""
) -> Any:
    row = Setting(name=name, default=default, parse=parse, secret=secret, section=section)
    return field(default_factory=partial(parse, default), repr=not secret, metadata={"setting": row})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings."""

    bind: tuple[str, int] = _setting("127.0.0.1:8000", to.address, section="Addresses")
    """Address to listen on; under systemd, set the same in `receiver.socket`."""
    internal_bind: tuple[str, int] | None = _setting("", to.optional(to.address, None))
    """Address of console, API and probes; `RECEIVER_BIND` then takes pushes only. Needs a second line in
    `receiver.socket`. Empty: all at `RECEIVER_BIND`."""
    public_url: str = _setting("", to.optional(to.http_url))
    """URL by which the platform and browsers reach the receiver, such as `https://sms.example.com`; the push URLs start
    with it. With a path (`https://example.com/sms`), all pages are below it, whether the proxy removes it or not; so
    with the `X-Forwarded-Prefix` of a trusted proxy. Empty: the listening address."""
    trusted_proxies: tuple[Network, ...] = _setting("", to.networks)
    """Proxies whose `X-Forwarded-For` is trusted, such as nginx on this machine: `127.0.0.1`."""
    tls_cert: Path | None = _setting("", to.path)
    """PEM file of the certificate chain, for TLS without a proxy; both or neither. Empty: plain HTTP."""
    tls_key: Path | None = _setting("", to.path)
    """PEM file of the certificate's key."""
    metrics_allow: tuple[Network, ...] = _setting("127.0.0.0/8,::1/128", to.networks)
    """Addresses and networks that may read `/metrics`."""

    data_dir: Path = _setting("./var", to.directory, section="Storage")
    """Directory of the embedded database, the spool and the generated secret; systemd sets `/var/lib/receiver`. Its
    mode is 0700, and every command runs as its owner; root is refused if that is another user, since its files would
    lock the server out."""
    database_url: str = _setting("", to.database_url, secret=True)
    """`postgresql://USER:PASSWORD@HOST/DATABASE`, also with several hosts:
    `postgresql://receiver@db1:5432,db2:5432/receiver`. Empty: SQLite in the data directory."""
    read_database_url: str = _setting("", to.replica, secret=True)
    """`postgresql://…` of a replica, for lists, reports and exports. Empty: none."""
    replica_max_lag: timedelta = _setting("5", to.seconds, name="RECEIVER_REPLICA_MAX_LAG_SECONDS")
    """Lag above which the replica is not read."""
    encryption_keys: tuple[tuple[str, bytes], ...] = _setting("", to.encryption_keys, secret=True)
    """Encryption keys, used after `receiver db encrypt`: `id:key,…`, the newest first. The first encrypts, all decrypt.
    A key is base64 of 32 bytes: `openssl rand -base64 32`. Without the keys the data is lost: keep a copy apart from
    the database's backups. Empty: no encryption."""
    spool_max_bytes: int = _setting("1073741824", to.size)
    """Size of the spool. When it is full and the database is unavailable, pushes get 503."""

    push_tokens: tuple[tuple[str, str], ...] = _setting("", to.tokens, secret=True, section="Pushes")
    """`account:secret,…`. An account may have several secrets at once, for rotation; the first is the active one. A
    secret is at least 22 letters, digits, `_` and `-`. Empty: one is generated into the data directory."""
    push_allow: tuple[Network, ...] = _setting("", to.networks)
    """Addresses and networks that may push. Empty: any."""
    push_allow_enforced: bool = _setting("enforce", _MODE, name="RECEIVER_PUSH_ALLOW_MODE")
    """`observe`: pushes that `RECEIVER_PUSH_ALLOW` would refuse are accepted, counted and shown."""
    push_lane: bool = _setting("on", to.switch)
    """`off`: all pushes go through Flask, without the fast path."""
    ack_status: int = _setting("200", to.ack_status)
    """Status of the answer to a push."""
    ack_body: str = _setting("ok", to.ack_body)
    """Body of the answer to a push."""
    ack_content_type: str = _setting("text/plain; charset=utf-8", to.header)
    """Content type of the answer to a push."""
    timezone: ZoneInfo = _setting("Asia/Shanghai", to.zone)
    """Time zone of the platform's times and of report days."""
    time_formats: tuple[str, ...] = _setting("", to.formats)
    """More accepted formats of `receivetime`, in strptime style (`%Y/%m/%d %H:%M:%S`), each a whole date and time,
    separated by `;`."""
    opt_out_words: OptOutWords = _setting(",".join(OPT_OUT_WORDS.words), to.opt_out_words)
    """Replies that count as an opt-out, from now on. One that contains such a word, or is one letter off one of four
    letters or more, is a possible opt-out, for a person to review."""
    opt_out_phrases: tuple[str, ...] = _setting(",".join(OPT_OUT_PHRASES), to.opt_out_phrases)
    """Replies that contain one of these are possible opt-outs too, from now on: slips of the words, and what people
    write who want no more messages. One of a single letter counts only as the whole reply."""
    late_after: timedelta = _setting("60", to.seconds, name="RECEIVER_LATE_AFTER_SECONDS")
    """A message pending for longer is `late`."""
    no_receipt_after: timedelta = _setting("72", to.hours, name="RECEIVER_NO_RECEIPT_AFTER_HOURS")
    """A message pending for longer is `no_receipt`."""

    platform_url: str = _setting("https://cloud.10658.com.cn/smsApi", to.http_url, section="Sends")
    """URL for sends and balance queries."""
    platform_credentials: tuple[tuple[str, str, str], ...] = _setting("", to.credentials, secret=True)
    """`account:appId:appKey,…` from the platform's console. Empty: nothing can be sent."""
    send_proxy_bind: tuple[str, int] | None = _setting("", to.optional(to.address, None))
    """Address of the send proxy for existing senders; each listener has a port of its own. Empty: none."""
    send_min_interval: timedelta = _setting("0", to.interval, name="RECEIVER_SEND_MIN_INTERVAL_SECONDS")
    """Local limit: the time between two sends to one number of an account, not through the send proxy. `0`: none."""
    send_max_per_number_per_day: int = _setting("0", to.count)
    """Local limit: sends of an account to one number per day. `0`: none."""
    send_max_per_day: int = _setting("0", to.count)
    """Local limit: sends of an account per day. `0`: none."""
    balance_low: tuple[tuple[str, int], ...] = _setting("", to.thresholds)  # account, or empty for every other
    """Threshold of a low balance: a number, or `account:number,…`. Below it a metric is set, and a log event written
    once a day."""

    alarm_urls: tuple[tuple[str, str, str], ...] = _setting("", to.alarm_urls, secret=True, section="Alarms")
    """Where `receiver run alarms` sends notifications: `kind:URL,…`. A kind is `dingtalk`, `wecom`, `feishu` or `url`;
    a secret to sign with follows after `#`; a comma in a URL is `%2C`."""
    alarm_heartbeat_url: str = _setting("", to.optional(to.collector_url), secret=True)
    """URL of a heartbeat monitor that `receiver run alarms` requests (GET) after each check, so that another service
    notices when it stops. One for each node."""
    alarm_language: str = _setting("en", to.choice({name: name for name in to.ALARM_LANGUAGES}))
    """Language of notifications: `en` or `zh-CN`."""
    alarm_silent: timedelta = _setting("10", to.minutes, name="RECEIVER_ALARM_SILENT_MINUTES")
    """Alarm when sends have waited this long without any push."""
    alarm_refusals: int = _setting("20", to.count)
    """Alarm above so many pushes refused for one reason in 15 minutes."""
    alarm_quarantined: int = _setting("5", to.count)
    """Alarm above so many unreadable pushes in an hour."""
    alarm_delivery_fall: float = _setting("10", to.percent, name="RECEIVER_ALARM_DELIVERY_FALL_PERCENT")
    """Alarm when the delivery rate falls by more percentage points."""

    audit_syslog: str = _setting("", to.optional(to.syslog), section="Logs")
    """Syslog server for the audit log: `unix:/dev/log`, `udp://host:514`, `tcp://host:601` or `tls://host:6514`. Empty:
    none."""
    access_log: bool = _setting("on", to.switch)
    """`off`: only failed requests (5xx) have a line."""
    log_level: int = _setting("info", to.choice(_LOG_LEVELS))
    """Lowest level written: `debug`, `info`, `warning` or `error`."""
    log_format: LogFormat = _setting("json", to.choice({form.value: form for form in LogFormat}))
    """`ecs`, `otel`: JSON with the field names of Elastic Common Schema or OpenTelemetry (`log-fields.md` lists them).
    `console`: for people, and slower."""

    keep_pushes_days: int = _setting("14", to.days, section="Retention")
    """Days until `receiver prune` deletes pushes; `0` in these five: never. Not longer than receipts and replies."""
    keep_receipts_days: int = _setting("180", to.days)
    """Days until it deletes receipts; not longer than messages."""
    keep_replies_days: int = _setting("90", to.days)
    """Days until it deletes replies; not longer than messages."""
    keep_messages_days: int = _setting("180", to.days)
    """Days until it deletes messages."""
    keep_audit_days: int = _setting("180", to.audit_days)
    """Days until it deletes audit entries; not less, since the Cybersecurity Law (article 23) asks for six months of
    logs."""

    webhooks_allow: tuple[Network | str, ...] = _setting("", to.webhooks_allow, section="Webhooks")
    """Networks, addresses and host names that webhooks may use, besides public addresses, separated by `,`."""
    webhooks_proxy: str = _setting("", to.optional(to.proxy), secret=True)
    """HTTP proxy for webhooks, `http://USER:PASSWORD@HOST:PORT`. Hosts and addresses named in
    `RECEIVER_WEBHOOKS_ALLOW` are reached without it. The proxy resolves names itself. If a name resolves here too, its
    addresses must be permitted here. Empty: none."""

    console_session: timedelta = _setting("12", to.hours, name="RECEIVER_CONSOLE_SESSION_HOURS", section="Console")
    """Hours until a session expires."""
    console_name: str = _setting("receiver", to.title)
    """Name of your company or installation: in the bar, the page titles and the log-in page."""
    console_totp: SecondFactor = _setting("auto", to.choice({value.value: value for value in SecondFactor}))
    """`required`, `optional`: whether analysts and admins must log in with a second factor. `auto`: they must, but may
    skip it on a server for trial, which listens on loopback addresses only, without `RECEIVER_PUBLIC_URL` and
    `RECEIVER_TRUSTED_PROXIES`."""
    console_user_header: str = _setting("", to.optional(to.header_name))
    """Header in which a trusted proxy names its logged-in user. Empty: none."""
    oidc_issuer: str = _setting("", to.optional(to.issuer))
    """OpenID provider for staff log-ins; `https://`, within this machine also `http://`. Empty: none."""
    oidc_client_id: str = _setting("", str)
    """Id of the client that was made there for the receiver."""
    oidc_client_secret: str = _setting("", str, secret=True)
    """Secret of that client."""
    oidc_roles: tuple[tuple[str, str], ...] = _setting("", to.roles)
    """Roles by the claim's value: `value:role,…`. The highest that fits wins."""
    oidc_claim: str = _setting("groups", to.claim)
    """The claim with the user's groups or roles, or a path such as `realm_access.roles`."""

    # Found when the settings are loaded.
    push_tokens_generated: bool = False  # by this call: only then is the secret shown unasked
    unknown: tuple[str, ...] = ()  # a warning for each unknown name that looks like a setting

    @property
    def accounts(self) -> frozenset[str]:
        """All configured accounts."""
        return frozenset([account for account, _ in self.push_tokens] + [row[0] for row in self.platform_credentials])

    def balance_low_of(self, account: str) -> int | None:
        """Return the balance below which an account is low; None if not set."""
        thresholds = dict(self.balance_low)
        return thresholds.get(account, thresholds.get(""))

    @property
    def inside(self) -> tuple[str, int]:
        """The address of console, API and probes."""
        return self.internal_bind or self.bind

    @property
    def scheme(self) -> str:
        """The URL scheme of `serve`, apart from the send proxy."""
        return "http" if self.tls_cert is None else "https"

    @property
    def embedded(self) -> bool:
        """Return whether the database is the embedded one."""
        return self.database_url.startswith("sqlite")

    @property
    def database_files(self) -> list[Path]:
        """The files of the embedded database; empty for PostgreSQL."""
        path = self.database_url.partition(":///")[2].partition("?")[0]
        return [Path(unquote(path) + suffix) for suffix in ("", "-wal", "-shm")] if self.embedded and path else []

    @property
    def own_files(self) -> list[Path]:
        """Files that a node must be able to read and write if they exist."""
        names = (PUSH_SECRET_FILE, SPOOL_DIR, CHECKPOINTS_FILE)
        return [*self.database_files, *(self.data_dir / name for name in names)]


def _rows() -> dict[str, Setting]:
    rows = {one.name: one.metadata["setting"] for one in fields(Settings) if one.metadata}
    return {name: replace(row, name=row.name or f"RECEIVER_{name.upper()}") for name, row in rows.items()}


SETTINGS: Mapping[str, Setting] = _rows()  # by field
