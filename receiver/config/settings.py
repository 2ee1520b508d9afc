"""The settings: read from the environment once, checked together, frozen."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from dotenv import dotenv_values

from receiver.config import parsers as to
from receiver.config.names import find_unknown
from receiver.core import (
    OPT_OUT_WORDS,
    OptOutWords,
    SettingsError,
    make_directory,
    ownership,
    sync_directory,
    write_new_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from receiver.config.parsers import Network

PUSH_SECRET_FILE = "push-secret"  # noqa: S105  (a file name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings. For names, defaults and meaning see README, Settings."""

    data_dir: Path
    database_url: str = field(repr=False)  # may hold a password
    read_database_url: str = field(default="", repr=False)  # of a replica; empty: none
    replica_max_lag: timedelta = timedelta(seconds=5)  # beyond this the replica is not read
    # (id, key), newest first: the first encrypts, all decrypt. Empty: no encryption.
    encryption_keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    bind: tuple[str, int] = ("127.0.0.1", 8000)
    # For console, API and probes; `bind` then takes pushes only. None: `bind` takes everything.
    internal_bind: tuple[str, int] | None = None
    tls_cert: Path | None = None  # PEM files of `serve`, both or neither; None: plain HTTP
    tls_key: Path | None = None
    push_tokens: tuple[tuple[str, str], ...] = field(repr=False)  # (account, secret)
    push_tokens_generated: bool = False  # by this call: only then is the secret shown unasked
    push_allow: tuple[Network, ...] = ()
    push_allow_enforced: bool = True  # False: pushes that it would refuse are accepted and reported
    trusted_proxies: tuple[Network, ...] = ()
    metrics_allow: tuple[Network, ...] = ()
    ack_status: int = 200
    ack_body: str = "ok"
    ack_content_type: str = "text/plain; charset=utf-8"
    timezone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Asia/Shanghai"))
    time_formats: tuple[str, ...] = ()
    opt_out_words: OptOutWords = OPT_OUT_WORDS
    late_after: timedelta = timedelta(seconds=60)
    no_receipt_after: timedelta = timedelta(hours=72)
    push_lane: bool = True
    spool_max_bytes: int = 1 << 30
    platform_url: str = "https://cloud.10658.com.cn/smsApi"
    platform_credentials: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    send_proxy_bind: tuple[str, int] | None = None  # None: no send proxy
    send_min_interval: timedelta = timedelta(0)  # 0 in these three: no local limit
    send_max_per_number_per_day: int = 0
    send_max_per_day: int = 0
    balance_low: tuple[tuple[str, int], ...] = ()  # (account, or empty for every other; threshold)
    alarm_urls: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)  # (kind, URL, secret to sign with)
    alarm_heartbeat_url: str = field(default="", repr=False)  # requested after each check; empty: none
    alarm_language: str = "en"
    alarm_silent: timedelta = timedelta(minutes=10)
    alarm_refusals: int = 20
    alarm_quarantined: int = 5
    alarm_delivery_fall: float = 10  # in percentage points
    webhooks_allow: tuple[Network | str, ...] = ()  # networks and host names, besides public addresses
    public_url: str = ""  # for the platform and browsers; empty: the listening address
    console_session: timedelta = timedelta(hours=12)
    console_totp: bool = True  # analysts and admins need a second factor
    console_user_header: str = ""  # in which a trusted proxy names its logged-in user; empty: none
    oidc_issuer: str = ""  # the provider for staff log-ins; empty: none
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_roles: tuple[tuple[str, str], ...] = ()  # (value of the claim, role)
    oidc_claim: str = "groups"  # a name, or a dotted path of names
    keep_pushes_days: int = 14  # 0 in these five: forever
    keep_receipts_days: int = 180
    keep_replies_days: int = 90
    keep_messages_days: int = 180
    keep_audit_days: int = 180
    audit_syslog: str = ""  # syslog server that gets the audit log; empty: none
    access_log: bool = True
    log_level: int = logging.INFO
    log_format: str = "json"  # or `console`
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
        names = (PUSH_SECRET_FILE, "spool", "audit.anchors")
        return [*self.database_files, *(self.data_dir / name for name in names)]


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Return the settings of the environment and `.env`. Creates the data directory and a missing push secret.

    The value of `NAME` may also be in the file that `NAME_FILE` names, or in systemd's credential `NAME`. The
    environment wins over `.env`, and both over a credential.
    Raises SettingsError naming every wrong setting.
    """
    environment = _read_environment(env_file)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field_name, (default, parse) in _PARSERS.items():
        name = _variable(field_name)
        try:
            values[field_name] = parse(_raw_value(name, environment) or default)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += _bind_problems(values) + _tls_problems(values) + _oidc_problems(values) + _replica_problems(values)
    problems += retention_problems(values)
    values["unknown"] = find_unknown(environment, [_variable(field_name) for field_name in _PARSERS])
    if problems:
        raise SettingsError("; ".join([*problems, *values["unknown"]]))
    data_dir: Path = values["data_dir"]
    make_data_dir(data_dir)
    values["database_url"] = values["database_url"] or to.sqlite_url(data_dir / "receiver.db")
    if not values["push_tokens"]:
        values["push_tokens"], values["push_tokens_generated"] = _own_push_tokens(data_dir / PUSH_SECRET_FILE)
    return Settings(**values)


def _variable(field_name: str) -> str:
    return f"RECEIVER_{_NAMES.get(field_name, field_name).upper()}"


def _read_environment(env_file: Path) -> dict[str, str | None]:
    """Return the environment and `.env`. A $ in `.env` is taken literally, since a password may contain one."""
    try:
        return {**dotenv_values(env_file, interpolate=False), **os.environ}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{env_file.absolute()}: line {line} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{env_file.absolute()}: {error.strerror}; fix or remove the file") from None


def _bind_problems(values: Mapping[str, Any]) -> list[str]:
    """Return which listeners share a port: the server distinguishes them by it."""
    problems: list[str] = []
    taken: dict[int, str] = {}
    for name in ("bind", "internal_bind", "send_proxy_bind"):
        variable, address = f"RECEIVER_{name.upper()}", values.get(name)
        if address and address[1] in taken:
            problems.append(f"{variable}: same port as {taken[address[1]]}; choose another")
        elif address:
            taken[address[1]] = variable
    return problems


def _replica_problems(values: Mapping[str, Any]) -> list[str]:
    """Return the fault of a replica without a primary. An invalid primary is not in `values`, and reported already."""
    if values.get("read_database_url") and not values.get("database_url", "postgresql").startswith("postgresql"):
        return ["RECEIVER_READ_DATABASE_URL: the embedded database has no replica; set RECEIVER_DATABASE_URL too"]
    return []


def retention_problems(values: Mapping[str, Any]) -> list[str]:
    """Return which retention days conflict. An invalid one is not in `values`, and reported already."""
    problems: list[str] = []
    days = {name: values.get(f"keep_{name}_days") for name in ("pushes", "receipts", "replies", "messages")}
    for name, holder, why in (
        ("pushes", "receipts", "the journal contains the receipts' data"),
        ("pushes", "replies", "the journal contains the replies' data"),
        ("receipts", "messages", "a receipt's number is stored in its message"),
        ("replies", "messages", "a reply's number is stored in its message"),
    ):
        own, others = days[name], days[holder]
        if own is not None and others and (own == 0 or own > others):
            problems.append(
                f"RECEIVER_KEEP_{name.upper()}_DAYS: longer than RECEIVER_KEEP_{holder.upper()}_DAYS; {why}"
            )
    no_receipt_after = values.get("no_receipt_after")
    if no_receipt_after is not None and days["messages"] and timedelta(days=days["messages"] - 1) < no_receipt_after:
        problems.append(
            "RECEIVER_KEEP_MESSAGES_DAYS: shorter than RECEIVER_NO_RECEIPT_AFTER_HOURS plus a day; pending messages "
            "must not be deleted"
        )
    return problems


def _tls_problems(values: Mapping[str, Any]) -> list[str]:
    names = ("tls_cert", "tls_key")
    missing = [f"RECEIVER_{name.upper()}" for name in names if not values.get(name, True)]
    if len(missing) != 1:
        return []
    return [f"{missing[0]}: missing; TLS needs the certificate chain and its key, each as a PEM file"]


def load_data_dir(env_file: Path = Path(".env")) -> Path:
    """Return the path of the data directory, without creating it. Raises SettingsError."""
    environment = _read_environment(env_file)
    default, parse = _PARSERS["data_dir"]
    try:
        place: Path = parse(_raw_value("RECEIVER_DATA_DIR", environment) or default)
    except ValueError as error:
        raise SettingsError(f"RECEIVER_DATA_DIR: {error}") from None
    return place


def _oidc_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what OpenID Connect lacks. An invalid setting is not in `values`, and counts as set."""
    names = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_roles")
    missing = [f"RECEIVER_{name.upper()}" for name in names if not values.get(name, True)]
    if len(missing) == len(names):
        return []
    if missing:
        return [f"{', '.join(missing)}: missing; OpenID Connect needs the issuer, a client's id and secret, and roles"]
    if any(find_spec(name) is None for name in ("authlib", "joserfc", "requests")):
        return ["RECEIVER_OIDC_ISSUER: OpenID Connect needs the extra `oidc`: pip install 'receiver[oidc]'"]
    if values.get("console_user_header"):
        # Both identify users by name: a user of one could choose the name of a user of the other.
        return ["RECEIVER_CONSOLE_USER_HEADER: not together with RECEIVER_OIDC_ISSUER; set only one of them"]
    return []


def reached_at(settings: Settings) -> str:
    """Return the base URL for the platform: RECEIVER_PUBLIC_URL, else by the listening address."""
    if settings.public_url:
        return settings.public_url
    return f"{settings.scheme}://{address_text(near(settings.bind))}"


def inside_at(settings: Settings) -> str:
    """Return the base URL of console and API."""
    if settings.internal_bind is None:
        return reached_at(settings)
    return f"{settings.scheme}://{address_text(near(settings.internal_bind))}"


def near(bind: tuple[str, int]) -> tuple[str, int]:
    """Return the address by which this machine reaches a listener, which may listen on all addresses."""
    host, port = bind
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def address_text(bind: tuple[str, int]) -> str:
    """Return an address as HOST:PORT."""
    host, port = bind
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def push_urls(settings: Settings) -> list[tuple[str, str]]:
    """Return the push URLs as (account, URL). They contain the secret."""
    return [(account, f"{reached_at(settings)}/push/{secret}") for account, secret in settings.push_tokens]


def _raw_value(name: str, environment: Mapping[str, str | None]) -> str:
    """Return a setting's text, or its file's content; empty when unset. Raises ValueError."""
    path = environment.get(f"{name}_FILE")
    credential = Path(environment.get("CREDENTIALS_DIRECTORY") or "/nowhere", name)
    if not path and not environment.get(name) and credential.is_file():
        path = str(credential)
    if not path:
        return to.unquoted((environment.get(name) or "").strip())
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"cannot read the file of {name}_FILE, or the credential {name}") from None


def make_data_dir(data_dir: Path) -> None:
    """Create the data directory with mode 0700. Raises SettingsError if that fails or it belongs to another user."""
    try:
        make_directory(data_dir)
    except PermissionError as error:
        raise SettingsError(f"RECEIVER_DATA_DIR: cannot create {data_dir}: {ownership.explain(error)}") from None
    except OSError as error:
        reason = error.strerror or "cannot be created"
        raise SettingsError(f"RECEIVER_DATA_DIR: {data_dir}: {reason}; set a directory that is writable") from None
    ownership.require_place(data_dir)


def _own_push_tokens(path: Path) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Return the generated secret, and whether this call made it. Atomic, even if several processes start at once."""
    generated = False
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        write_new_file(draft, f"default:{secrets.token_urlsafe(32)}\n".encode())
        try:
            os.link(draft, path)
            generated = True
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        # Sync the name too, before the secret is shown: a new one after a power failure would refuse every push.
        sync_directory(path.parent)
    try:
        return to.tokens(path.read_text().strip()), generated
    except (OSError, ValueError) as error:
        raise SettingsError(f"RECEIVER_PUSH_TOKENS: {path}: {error}; fix or remove the file") from None


# Field of Settings: (default as text, parser). The variable is RECEIVER_ and the field's name in capitals.
_PARSERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "data_dir": ("./var", lambda value: Path(value).absolute()),
    "database_url": ("", to.database_url),
    "read_database_url": ("", to.replica),
    "replica_max_lag": ("5", lambda value: timedelta(seconds=to.positive(value))),
    "encryption_keys": ("", to.encryption_keys),
    "bind": ("127.0.0.1:8000", to.address),
    "internal_bind": ("", lambda value: to.address(value) if value else None),
    "tls_cert": ("", to.path),
    "tls_key": ("", to.path),
    "push_tokens": ("", to.tokens),
    "push_allow": ("", to.networks),
    "push_allow_enforced": ("enforce", to.enforced),
    "trusted_proxies": ("", to.networks),
    "metrics_allow": ("127.0.0.0/8,::1/128", to.networks),
    "ack_status": ("200", to.ack_status),
    "ack_body": ("ok", to.ack_body),
    "ack_content_type": ("text/plain; charset=utf-8", to.header),
    "timezone": ("Asia/Shanghai", to.zone),
    "time_formats": ("", to.formats),
    "opt_out_words": (",".join(OPT_OUT_WORDS.words), lambda value: OptOutWords(to.words(value))),
    "late_after": ("60", lambda value: timedelta(seconds=to.positive(value))),
    "no_receipt_after": ("72", lambda value: timedelta(hours=to.positive(value))),
    "push_lane": ("on", to.switch),
    "spool_max_bytes": ("1073741824", to.size),
    "platform_url": ("https://cloud.10658.com.cn/smsApi", to.http_url),
    "platform_credentials": ("", to.credentials),
    "send_proxy_bind": ("", lambda value: to.address(value) if value else None),
    "send_min_interval": ("0", lambda value: timedelta(seconds=to.count(value))),
    "send_max_per_number_per_day": ("0", to.count),
    "send_max_per_day": ("0", to.count),
    "balance_low": ("", to.thresholds),
    "alarm_urls": ("", to.alarm_urls),
    "alarm_heartbeat_url": ("", lambda value: to.collector_url(value) if value else ""),
    "alarm_language": ("en", to.alarm_language),
    "alarm_silent": ("10", lambda value: timedelta(minutes=to.positive(value))),
    "alarm_refusals": ("20", to.count),
    "alarm_quarantined": ("5", to.count),
    "alarm_delivery_fall": ("10", to.percent),
    "webhooks_allow": ("", to.webhooks_allow),
    "public_url": ("", lambda value: to.http_url(value) if value else ""),
    "console_session": ("12", lambda value: timedelta(hours=to.positive(value))),
    "console_totp": ("required", to.required),
    "console_user_header": ("", lambda value: to.header_name(value) if value else ""),
    "oidc_issuer": ("", lambda value: to.issuer(value) if value else ""),
    "oidc_client_id": ("", str),
    "oidc_client_secret": ("", str),
    "oidc_roles": ("", to.roles),
    "oidc_claim": ("groups", to.claim),
    "keep_pushes_days": ("14", to.days),
    "keep_receipts_days": ("180", to.days),
    "keep_replies_days": ("90", to.days),
    "keep_messages_days": ("180", to.days),
    "keep_audit_days": ("180", to.audit_days),
    "audit_syslog": ("", lambda value: to.syslog(value) if value else ""),
    "access_log": ("on", to.switch),
    "log_level": ("info", to.log_level),
    "log_format": ("json", to.log_format),
}
# For variables that name a unit, where the field is a timedelta; or a mode, where the field is a bool.
_NAMES: Mapping[str, str] = {
    "late_after": "late_after_seconds",
    "push_allow_enforced": "push_allow_mode",
    "replica_max_lag": "replica_max_lag_seconds",
    "no_receipt_after": "no_receipt_after_hours",
    "send_min_interval": "send_min_interval_seconds",
    "console_session": "console_session_hours",
    "alarm_silent": "alarm_silent_minutes",
    "alarm_delivery_fall": "alarm_delivery_fall_percent",
}
