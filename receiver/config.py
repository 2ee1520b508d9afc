"""The settings: read from the environment once, checked together, frozen."""

from __future__ import annotations

import logging
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values

from receiver.errors import SettingsError
from receiver.opt_out import OPT_OUT_WORDS, OptOutWords

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Network = IPv4Network | IPv6Network

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,}", re.ASCII)
_ACK_BODY_MAX_CHARS = 255  # the platform's console keeps no more of an answer
_LOG_LEVELS = ("debug", "info", "warning", "error")
ROLES = ("support", "analyst", "admin")  # of staff, the least first
ALARM_KINDS = ("dingtalk", "wecom", "feishu", "url")  # whom `receiver job alarms` can tell
_ALARM_KINDS_THAT_SIGN = ("dingtalk", "feishu")
ALARM_LANGUAGES = ("en", "zh-CN")
PUSH_SECRET_FILE = "push-secret"  # noqa: S105  (a file name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that can be set. Names, defaults and meaning: README, Settings."""

    data_dir: Path
    database_url: str = field(repr=False)  # may hold a password
    read_database_url: str = field(default="", repr=False)  # of a replica; empty: none
    replica_max_lag: timedelta = timedelta(seconds=5)  # beyond which it answers nothing
    bind: tuple[str, int] = ("127.0.0.1", 8000)
    inside_bind: tuple[str, int] | None = None  # of all but pushes, which alone are then at `bind`; None: all is there
    tls_cert: Path | None = None  # PEM files of `serve`, both or neither; None: plain HTTP
    tls_key: Path | None = None
    push_tokens: tuple[tuple[str, str], ...] = field(repr=False)  # (account, secret)
    push_tokens_generated: bool = False  # by this very call: the one time to show the secret unasked
    push_allow: tuple[Network, ...] = ()
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
    door_bind: tuple[str, int] | None = None  # None: no drop-in door
    send_min_interval: timedelta = timedelta(0)  # 0 in these three: no limit of ours
    send_max_per_number_per_day: int = 0
    send_max_per_day: int = 0
    balance_low: tuple[tuple[str, int], ...] = ()  # (account, or empty for every other; threshold)
    alarm_urls: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)  # (kind, URL, secret to sign with)
    alarm_language: str = "en"
    alarm_silent: timedelta = timedelta(minutes=10)
    alarm_refusals: int = 20
    alarm_quarantined: int = 5
    alarm_delivery_fall: float = 10  # in percentage points
    public_url: str = ""  # how the platform and browsers reach us; empty: by the address that we listen on
    console_session: timedelta = timedelta(hours=12)
    console_totp: bool = True  # analysts and admins need a second factor
    console_user_header: str = ""  # in which a trusted proxy names who has logged in there; empty: none does
    oidc_issuer: str = ""  # the provider at which staff may log in; empty: none
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_roles: tuple[tuple[str, str], ...] = ()  # (what the claim holds, role)
    oidc_claim: str = "groups"  # a name, or a path of names with dots between
    access_log: bool = True
    log_level: int = logging.INFO
    log_format: str = "json"  # or `console`

    @property
    def accounts(self) -> frozenset[str]:
        """Every account that this deployment knows."""
        return frozenset([account for account, _ in self.push_tokens] + [row[0] for row in self.platform_credentials])

    def balance_low_of(self, account: str) -> int | None:
        """Give the balance below which an account is low; None: nobody has said."""
        thresholds = dict(self.balance_low)
        return thresholds.get(account, thresholds.get(""))

    @property
    def inside(self) -> tuple[str, int]:
        """The address that console, API and probes listen on."""
        return self.inside_bind or self.bind

    @property
    def scheme(self) -> str:
        """How `serve` is spoken to, but for the drop-in door."""
        return "http" if self.tls_cert is None else "https"

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.database_url.startswith("sqlite")


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Read the settings from the environment and `.env`; make the data directory and a missing push secret.

    `NAME_FILE` names a file that holds the value of `NAME`, as does a credential of systemd of that name. The
    environment wins over `.env`, and both over a credential.
    Raises SettingsError naming every wrong setting.
    """
    environment = {**dotenv_values(env_file), **os.environ}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field_name, (default, parse) in _PARSERS.items():
        name = f"RECEIVER_{_NAMES.get(field_name, field_name).upper()}"
        try:
            values[field_name] = parse(_raw_value(name, environment) or default)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += _bind_problems(values) + _tls_problems(values) + _oidc_problems(values) + _replica_problems(values)
    if problems:
        raise SettingsError("; ".join(problems))
    data_dir: Path = values["data_dir"]
    make_data_dir(data_dir)
    values["database_url"] = values["database_url"] or f"sqlite:///{data_dir / 'receiver.db'}"
    if not values["push_tokens"]:
        values["push_tokens"], values["push_tokens_generated"] = _own_push_tokens(data_dir / PUSH_SECRET_FILE)
    return Settings(**values)


def _bind_problems(values: Mapping[str, Any]) -> list[str]:
    """Say which listener has the port of another: they are told apart by it."""
    problems: list[str] = []
    taken: dict[int, str] = {}
    for name in ("bind", "inside_bind", "door_bind"):
        variable, address = f"RECEIVER_{name.upper()}", values.get(name)
        if address and address[1] in taken:
            problems.append(f"{variable}: the port of {taken[address[1]]}; it needs a listener of its own")
        elif address:
            taken[address[1]] = variable
    return problems


def _replica_problems(values: Mapping[str, Any]) -> list[str]:
    """Say where a replica has no primary; a primary that is wrong is not in `values`, and told of already."""
    if values.get("read_database_url") and not values.get("database_url", "postgresql").startswith("postgresql"):
        return ["RECEIVER_READ_DATABASE_URL: the embedded database has no replica; set RECEIVER_DATABASE_URL"]
    return []


def _tls_problems(values: Mapping[str, Any]) -> list[str]:
    names = ("tls_cert", "tls_key")
    missing = [f"RECEIVER_{name.upper()}" for name in names if not values.get(name, True)]
    if len(missing) != 1:
        return []
    return [f"{missing[0]}: missing; TLS needs the certificate chain and its key, each as a PEM file"]


def load_data_dir(env_file: Path = Path(".env")) -> Path:
    """Read the data directory's place alone, and make nothing."""
    environment = {**dotenv_values(env_file), **os.environ}
    default, parse = _PARSERS["data_dir"]
    place: Path = parse(_raw_value("RECEIVER_DATA_DIR", environment) or default)
    return place


def _oidc_problems(values: Mapping[str, Any]) -> list[str]:
    """Say what logging in by OpenID Connect lacks; a setting that is wrong is not in `values`, and counts as set."""
    names = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_roles")
    missing = [f"RECEIVER_{name.upper()}" for name in names if not values.get(name, True)]
    if len(missing) == len(names):
        return []
    if missing:
        return [f"{', '.join(missing)}: missing; OpenID Connect needs the issuer, a client's id and secret, and roles"]
    if any(find_spec(name) is None for name in ("authlib", "joserfc", "requests")):
        return ["RECEIVER_OIDC_ISSUER: OpenID Connect needs the extra `oidc`: pip install 'receiver[oidc]'"]
    if values.get("console_user_header"):
        # Both find users by name: whoever chooses theirs at the one could become somebody of the other.
        return ["RECEIVER_CONSOLE_USER_HEADER: not together with RECEIVER_OIDC_ISSUER; take one of the two"]
    return []


def reached_at(settings: Settings) -> str:
    """Give the beginning of the URLs under which we are reached: as it is set, else by the address we listen on."""
    if settings.public_url:
        return settings.public_url
    return f"{settings.scheme}://{address_text(near(settings.bind))}"


def inside_at(settings: Settings) -> str:
    """Give the beginning of the URLs of console and API."""
    if settings.inside_bind is None:
        return reached_at(settings)
    return f"{settings.scheme}://{address_text(near(settings.inside_bind))}"


def near(bind: tuple[str, int]) -> tuple[str, int]:
    """Give the address at which this machine reaches what listens on another, which may be that of all."""
    host, port = bind
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def address_text(bind: tuple[str, int]) -> str:
    """Write an address as HOST:PORT."""
    host, port = bind
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def push_urls(settings: Settings) -> list[tuple[str, str]]:
    """Give (account, URL to push to). They hold the secret."""
    return [(account, f"{reached_at(settings)}/push/{secret}") for account, secret in settings.push_tokens]


def _raw_value(name: str, environment: Mapping[str, str | None]) -> str:
    """Give a setting's text, from its file where one is named; empty when unset."""
    path = environment.get(f"{name}_FILE")
    credential = Path(environment.get("CREDENTIALS_DIRECTORY") or "/nowhere", name)
    if not path and not environment.get(name) and credential.is_file():
        path = str(credential)
    if not path:
        return (environment.get(name) or "").strip()
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"the file named by {name}_FILE, or the credential of that name, cannot be read") from None


def make_data_dir(data_dir: Path) -> None:
    """Make the data directory, for this user alone. Raises SettingsError where that is impossible."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or "cannot be made"
        raise SettingsError(
            f"RECEIVER_DATA_DIR: {data_dir}: {reason}; name a directory that this user may write"
        ) from None


def _own_push_tokens(path: Path) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Read the generated secret, or make it: whole or not at all, however many processes start at once."""
    generated = False
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"default:{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
            generated = True
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    try:
        return _tokens(path.read_text().strip()), generated
    except (OSError, ValueError) as error:
        raise SettingsError(f"RECEIVER_PUSH_TOKENS: {path}: {error}; mend or remove that file") from None


# --- Parsers: a value as text to what Settings holds. ValueError says what is wrong, never the value. ----


def parse_database_url(value: str) -> str:
    """Read a database's URL as its driver wants it; empty stays empty. Raises ValueError."""
    if not value:
        return ""
    scheme = urlsplit(value).scheme.partition("+")[0]
    if scheme in ("mysql", "mariadb"):
        raise ValueError("MySQL is not supported; use postgresql://… or leave it empty for the embedded database")
    if scheme in ("postgresql", "postgres"):
        rest = value.partition("://")[2]
        hosts, attributes = _servers(rest)
        if attributes not in (None, "read-write", "primary"):
            raise ValueError("target_session_attrs must be read-write: a standby can keep nothing")
        if hosts > 1 and attributes is None:
            rest += f"{'&' if '?' in rest else '?'}target_session_attrs=read-write"
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite":
        return value
    raise ValueError("not a database URL; use postgresql://… or leave it empty for the embedded database")


def _replica(value: str) -> str:
    if not value:
        return ""
    if urlsplit(value).scheme not in ("postgresql", "postgres"):
        raise ValueError("not the URL of a replica; use postgresql://… or leave it empty for none")
    rest = value.partition("://")[2]
    _servers(rest)
    return f"postgresql+psycopg://{rest}"


def _servers(rest: str) -> tuple[int, str | None]:
    """Read a PostgreSQL URL, without its scheme, as the driver will. How many hosts it names, and what they must be."""
    if find_spec("psycopg") is None:
        raise ValueError("PostgreSQL needs the extra `postgres`: pip install 'receiver[postgres]'")
    from psycopg import ProgrammingError  # noqa: PLC0415  (the embedded database needs no driver)
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        found = {name: str(text) for name, text in conninfo_to_dict(f"postgresql://{rest}").items()}
    except ProgrammingError:  # whose words may hold a part of the password
        raise ValueError(
            "not a database URL that PostgreSQL understands: postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?…, "
            "special characters as %XX, only parameters of libpq"
        ) from None
    ports = found.get("port", "").split(",")
    if any(port and not (port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise ValueError("a port is not a number from 1 to 65535; special characters of a password are written as %XX")
    return len(found.get("host", "").split(",")), found.get("target_session_attrs")


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("not an address of the form HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _networks(value: str) -> tuple[Network, ...]:
    networks = []
    for item in _items(value):
        try:
            networks.append(ip_network(item))
        except ValueError:
            raise ValueError("not a list of addresses and networks, such as 10.0.0.0/8,203.0.113.7") from None
    return tuple(networks)


def _tokens(value: str) -> tuple[tuple[str, str], ...]:
    tokens: dict[str, str] = {}
    for item in _items(value):
        account, colon, secret = item.partition(":")
        if not colon or not _ACCOUNT.fullmatch(account):
            raise ValueError("not of the form account:secret,… (an account is letters, digits, _, . and -)")
        if not _SECRET.fullmatch(secret):
            raise ValueError(f"the secret of {account} must be letters, digits, _ and -, at least 22 of them")
        if tokens.setdefault(secret, account) != account:
            raise ValueError(f"{tokens[secret]} and {account} share a secret; give each its own")
    return tuple((account, secret) for secret, account in tokens.items())


def _credentials(value: str) -> tuple[tuple[str, str, str], ...]:
    rows = []
    for item in _items(value):
        account, app_id, app_key, *rest = [*item.split(":"), "", ""]
        if not _ACCOUNT.fullmatch(account) or not app_id or not app_key or any(rest):
            raise ValueError("not of the form account:appId:appKey,…")
        rows.append((account, app_id, app_key))
    return tuple(rows)


def _ack_status(value: str) -> int:
    if not re.fullmatch(r"2\d\d", value, re.ASCII):
        raise ValueError("not a status from 200 to 299")
    return int(value)


def _ack_body(value: str) -> str:
    if len(value) > _ACK_BODY_MAX_CHARS:
        raise ValueError(f"over {_ACK_BODY_MAX_CHARS} characters, which is all that the platform keeps")
    return value


def _header(value: str) -> str:
    if not value.isascii() or not value.isprintable() or not value:
        raise ValueError("not a header value")
    return value


def _zone(value: str) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone; use a name such as Asia/Shanghai") from None


def _formats(value: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in value.split(";")) if item)


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise ValueError("not a number above 0 and below 1,000,000")
    return number


def _switch(value: str) -> bool:
    if value.lower() not in ("on", "off"):
        raise ValueError("not on or off")
    return value.lower() == "on"


def _log_level(value: str) -> int:
    if value.lower() not in _LOG_LEVELS:
        raise ValueError(f"not one of {', '.join(_LOG_LEVELS)}")
    return logging.getLevelNamesMapping()[value.upper()]


def _log_format(value: str) -> str:
    if value.lower() not in ("json", "console"):
        raise ValueError("not json or console")
    return value.lower()


def _required(value: str) -> bool:
    if value.lower() not in ("required", "optional"):
        raise ValueError("not required or optional")
    return value.lower() == "required"


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", value, re.ASCII):
        raise ValueError("not the name of a header, such as X-Forwarded-User")
    return value


def _path(value: str) -> Path | None:
    return Path(value).absolute() if value else None


def _bytes(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 50:
        raise ValueError("not a number of bytes above 0")
    return int(value)


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 10**9:
        raise ValueError("not a whole number; 0 is no limit")
    return int(value)


def _thresholds(value: str) -> tuple[tuple[str, int], ...]:
    rows = []
    for item in _items(value):
        account, _, number = item.rpartition(":")
        if (account and not _ACCOUNT.fullmatch(account)) or not number.isascii() or not number.isdigit():
            raise ValueError("not a number of messages, or account:number,…")
        rows.append((account, int(number)))
    return tuple(rows)


def _alarm_urls(value: str) -> tuple[tuple[str, str, str], ...]:
    rows: list[tuple[str, str, str]] = []
    for item in _items(value):
        kind, _, rest = item.partition(":")
        url, _, secret = rest.partition("#")
        if kind not in ALARM_KINDS:
            raise ValueError(f"not of the form kind:URL,… (a kind is one of {', '.join(ALARM_KINDS)})")
        if secret and kind not in _ALARM_KINDS_THAT_SIGN:
            raise ValueError(f"{kind} signs nothing: leave out what is after #")
        if kind != "url" or urlsplit(url).scheme != "http":  # an own collector may be near enough for plain HTTP
            secure_url(url)
        elif not urlsplit(url).hostname:
            raise ValueError("not a URL of the form http://HOST/PATH")
        if (kind, url) in [row[:2] for row in rows]:
            raise ValueError(f"a URL of {kind} is named twice")
        rows.append((kind, url, secret))
    return tuple(rows)


def _alarm_language(value: str) -> str:
    if value not in ALARM_LANGUAGES:
        raise ValueError(f"not one of {', '.join(ALARM_LANGUAGES)}")
    return value


def _percent(value: str) -> float:
    number = _positive(value)
    if number >= 100:
        raise ValueError("not a percentage above 0 and below 100")
    return number


def http_url(value: str) -> str:
    """Take a URL without query, without a slash at its end. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("not a URL of the form https://HOST/PATH")
    return value.rstrip("/")


def secure_url(value: str) -> str:
    """Take a URL that nobody can listen in on: HTTPS, or HTTP within this machine. Raises ValueError."""
    parts = urlsplit(value)
    host = parts.hostname or ""
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and near)):
        raise ValueError("not a URL of the form https://HOST/PATH (http:// only within this machine)")
    return value


def _issuer(value: str) -> str:
    http_url(value)
    return secure_url(value)  # as it is: a slash at its end is part of the provider's name


def _roles(value: str) -> tuple[tuple[str, str], ...]:
    rows = []
    for item in _items(value):
        held, _, role = (part.strip() for part in item.rpartition(":"))
        if not held or role not in ROLES:
            raise ValueError(f"not of the form value:role,… (a role is one of {', '.join(ROLES)})")
        rows.append((held, role))
    return tuple(rows)


def _claim(value: str) -> str:
    if not all(value.split(".")) or " " in value or not value.isprintable():
        raise ValueError("not the name of a claim, such as groups, nor a path such as realm_access.roles")
    return value


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


# Field of Settings: (default as text, parser). The variable is RECEIVER_ and the field's name in capitals.
_PARSERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "data_dir": ("./var", lambda value: Path(value).absolute()),
    "database_url": ("", parse_database_url),
    "read_database_url": ("", _replica),
    "replica_max_lag": ("5", lambda value: timedelta(seconds=_positive(value))),
    "bind": ("127.0.0.1:8000", _address),
    "inside_bind": ("", lambda value: _address(value) if value else None),
    "tls_cert": ("", _path),
    "tls_key": ("", _path),
    "push_tokens": ("", _tokens),
    "push_allow": ("", _networks),
    "trusted_proxies": ("", _networks),
    "metrics_allow": ("127.0.0.0/8,::1/128", _networks),
    "ack_status": ("200", _ack_status),
    "ack_body": ("ok", _ack_body),
    "ack_content_type": ("text/plain; charset=utf-8", _header),
    "timezone": ("Asia/Shanghai", _zone),
    "time_formats": ("", _formats),
    "opt_out_words": (",".join(OPT_OUT_WORDS.words), lambda value: OptOutWords(_items(value.replace("\uff0c", ",")))),
    "late_after": ("60", lambda value: timedelta(seconds=_positive(value))),
    "no_receipt_after": ("72", lambda value: timedelta(hours=_positive(value))),
    "push_lane": ("on", _switch),
    "spool_max_bytes": ("1073741824", _bytes),
    "platform_url": ("https://cloud.10658.com.cn/smsApi", http_url),
    "platform_credentials": ("", _credentials),
    "door_bind": ("", lambda value: _address(value) if value else None),
    "send_min_interval": ("0", lambda value: timedelta(seconds=_count(value))),
    "send_max_per_number_per_day": ("0", _count),
    "send_max_per_day": ("0", _count),
    "balance_low": ("", _thresholds),
    "alarm_urls": ("", _alarm_urls),
    "alarm_language": ("en", _alarm_language),
    "alarm_silent": ("10", lambda value: timedelta(minutes=_positive(value))),
    "alarm_refusals": ("20", _count),
    "alarm_quarantined": ("5", _count),
    "alarm_delivery_fall": ("10", _percent),
    "public_url": ("", lambda value: http_url(value) if value else ""),
    "console_session": ("12", lambda value: timedelta(hours=_positive(value))),
    "console_totp": ("required", _required),
    "console_user_header": ("", lambda value: _header_name(value) if value else ""),
    "oidc_issuer": ("", lambda value: _issuer(value) if value else ""),
    "oidc_client_id": ("", str),
    "oidc_client_secret": ("", str),
    "oidc_roles": ("", _roles),
    "oidc_claim": ("groups", _claim),
    "access_log": ("on", _switch),
    "log_level": ("info", _log_level),
    "log_format": ("json", _log_format),
}
# Where the variable says its unit and the field, being a timedelta, does not.
_NAMES: Mapping[str, str] = {
    "late_after": "late_after_seconds",
    "replica_max_lag": "replica_max_lag_seconds",
    "no_receipt_after": "no_receipt_after_hours",
    "send_min_interval": "send_min_interval_seconds",
    "console_session": "console_session_hours",
    "alarm_silent": "alarm_silent_minutes",
    "alarm_delivery_fall": "alarm_delivery_fall_percent",
}
