"""Parsers of the settings' texts. Each raises ValueError with the fault, never with the value."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from receiver.config.addresses import is_loopback
from receiver.core import OptOutWords, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Network = IPv4Network | IPv6Network

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
_PORT = re.compile(r"\d{1,5}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,}", re.ASCII)
_ACK_BODY_MAX_CHARS = 255  # the platform's console stores no more of an answer
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,16}", re.ASCII)
_KEY_BYTES = 32
ROLES = ("support", "analyst", "admin")  # by permissions, fewest first
ALARM_KINDS = ("dingtalk", "wecom", "feishu", "url")  # services that `receiver run alarms` can notify
_ALARM_KINDS_THAT_SIGN = ("dingtalk", "feishu")
ALARM_LANGUAGES = ("en", "zh-CN")


def optional(parse: Callable[[str], Any], empty: str | None = "") -> Callable[[str], Any]:
    """Return a parser that gives `empty` for an empty text."""
    return lambda value: parse(value) if value else empty


def unquoted(value: str) -> str:
    """Return a value of the environment unchanged. Raises ValueError if it is in quotation marks.

    `docker run --env-file` and lists of compose do not remove them, so they would become part of a path or word.
    """
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        raise ValueError("in quotation marks, which become part of the value: remove them")
    return value


def database_url(value: str) -> str:
    """Return a database URL with the driver in its scheme; empty for an empty one. Raises ValueError."""
    if not value:
        return ""
    scheme = urlsplit(value).scheme.partition("+")[0]
    if scheme in ("mysql", "mariadb"):
        raise ValueError("MySQL is not supported; use postgresql://… or leave it empty for the embedded database")
    if scheme in ("postgresql", "postgres"):
        rest = value.partition("://")[2]
        hosts, attributes = _servers(rest)
        if attributes not in (None, "read-write", "primary"):
            raise ValueError("target_session_attrs must be read-write: a standby cannot store pushes")
        if hosts > 1 and attributes is None:
            rest += f"{'&' if '?' in rest else '?'}target_session_attrs=read-write"
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite":
        return value
    raise ValueError("not a database URL; use postgresql://… or leave it empty for the embedded database")


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file, with `?` and `%` of its path escaped."""
    return f"sqlite:///{path}".replace("%", "%25").replace("?", "%3F")


def replica(value: str) -> str:
    if not value:
        return ""
    if urlsplit(value).scheme not in ("postgresql", "postgres"):
        raise ValueError("not the URL of a replica; use postgresql://… or leave it empty for none")
    rest = value.partition("://")[2]
    _servers(rest)
    return f"postgresql+psycopg://{rest}"


def _servers(rest: str) -> tuple[int, str | None]:
    """Return the number of hosts and the target_session_attrs of a PostgreSQL URL without its scheme."""
    if find_spec("psycopg") is None:
        raise ValueError("PostgreSQL needs the extra `postgres`: pip install 'receiver[postgres]'")
    from psycopg import ProgrammingError  # noqa: PLC0415  (the embedded database needs no driver)
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        parameters = {name: str(text) for name, text in conninfo_to_dict(f"postgresql://{rest}").items()}
    except ProgrammingError:  # its message may contain a part of the password
        raise ValueError(
            "not a valid PostgreSQL URL; use postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?…, with "
            "special characters as %XX and only parameters of libpq"
        ) from None
    if "@" in parameters.get("host", ""):  # the rest of a password, which an error about the host would show
        raise ValueError("an @ in a host name; write the @ of a password as %40")
    ports = parameters.get("port", "").split(",")
    if any(port and not (port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise ValueError("a port is not a number from 1 to 65535; write special characters of a password as %XX")
    return len(parameters.get("host", "").split(",")), parameters.get("target_session_attrs")


def address(value: str) -> tuple[str, int]:
    """Return the host and port of HOST:PORT. Raises ValueError, also for an omitted host, which is ambiguous."""
    host, colon, port = value.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535 or (colon and host not in ("", "*") and not _is_host(host)):
        raise ValueError("not an address of the form HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000, without http://")
    if host in ("", "*"):
        raise ValueError(
            "HOST is missing; write 127.0.0.1:PORT for local access only, 0.0.0.0:PORT or [::]:PORT for all addresses"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_host(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return bool(_HOST_NAME.fullmatch(host)) and not host.rpartition(".")[2].isdigit()
    return True


def networks(value: str) -> tuple[Network, ...]:
    networks = []
    for item in items(value):
        try:
            networks.append(ip_network(item))
        except ValueError:
            raise ValueError("not a list of addresses and networks, such as 10.0.0.0/8,203.0.113.7") from None
    return tuple(networks)


def webhooks_allow(value: str) -> tuple[Network | str, ...]:
    allowed: list[Network | str] = []
    for item in items(value):
        try:
            allowed.append(ip_network(item))
        except ValueError:
            if not _HOST_NAME.fullmatch(item) or item.rpartition(".")[2].isdigit():
                raise ValueError(
                    "not a list of networks, addresses and host names, such as 10.0.0.0/8,hooks.internal"
                ) from None
            allowed.append(item.lower())
    return tuple(allowed)


def tokens(value: str) -> tuple[tuple[str, str], ...]:
    tokens: dict[str, str] = {}
    for item in items(value):
        account, colon, secret = item.partition(":")
        if not colon or not _ACCOUNT.fullmatch(account):
            raise ValueError("not of the form account:secret,… (an account is letters, digits, _, . and -)")
        if not _SECRET.fullmatch(secret):
            raise ValueError(f"the secret of {account} must be letters, digits, _ and -, at least 22 of them")
        if tokens.setdefault(secret, account) != account:
            raise ValueError(f"{tokens[secret]} and {account} share a secret; use one for each")
    return tuple((account, secret) for secret, account in tokens.items())


def credentials(value: str) -> tuple[tuple[str, str, str], ...]:
    rows = []
    for item in items(value):
        account, app_id, app_key, *rest = [*item.split(":"), "", ""]
        if not _ACCOUNT.fullmatch(account) or not app_id or not app_key or any(rest):
            raise ValueError("not of the form account:appId:appKey,…")
        rows.append((account, app_id, app_key))
    return tuple(rows)


def ack_status(value: str) -> int:
    if not re.fullmatch(r"2\d\d", value, re.ASCII):
        raise ValueError("not a status from 200 to 299")
    return int(value)


def ack_body(value: str) -> str:
    if len(value) > _ACK_BODY_MAX_CHARS:
        raise ValueError(f"over {_ACK_BODY_MAX_CHARS} characters; the platform stores no more")
    return value


def header(value: str) -> str:
    if not value.isascii() or not value.isprintable() or not value:
        raise ValueError("not a header value")
    return value


def zone(value: str) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone; use a name such as Asia/Shanghai") from None


# A format is complete if each of these survives formatting and parsing. No two parts of them are equal.
_SAMPLES = (datetime(2026, 11, 23, 21, 14, 56, tzinfo=UTC), datetime(2031, 2, 4, 3, 5, 7, tzinfo=UTC))
_DIRECTIVE = re.compile("%(.)")
_WRONG_SEPARATORS = re.compile("[,|\uff0c\uff1b\u3001]")


def formats(value: str) -> tuple[str, ...]:
    """Return the formats of a date and time. Raises ValueError for one that lacks a part of it."""
    formats = tuple(item for item in (part.strip() for part in value.split(";")) if item)
    for place, item in enumerate(formats, 1):
        if (fault := _format_fault(item)) is None:
            continue
        parts = [part.strip() for part in _WRONG_SEPARATORS.split(item)]
        if len(parts) > 1 and not any(map(_format_fault, parts)):
            fault = "several formats; separate them by ;"
        raise ValueError(f"format {place}: {fault}")
    return formats


def _format_fault(item: str) -> str | None:
    """Return why a format does not parse a whole date and time; None if it does."""
    directives = [name for name in _DIRECTIVE.findall(item) if name != "%"]
    twice = next((name for name in directives if directives.count(name) > 1), None)
    if twice is not None:
        return f"%{twice} occurs twice" + ("; minutes are %M, months %m" if twice in "mM" else "")
    for sample in _SAMPLES:
        try:
            if datetime.strptime(sample.strftime(item), item).replace(tzinfo=UTC) == sample:
                continue
        except (ValueError, re.error):
            return "not valid for Python's strptime; the usual one is %Y-%m-%d %H:%M:%S"
        return "lacks year, month, day, hour, minute or second; the usual one is %Y-%m-%d %H:%M:%S"
    return None


def positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise ValueError("not a number above 0 and below 1,000,000")
    return number


def seconds(value: str) -> timedelta:
    return timedelta(seconds=positive(value))


def minutes(value: str) -> timedelta:
    return timedelta(minutes=positive(value))


def hours(value: str) -> timedelta:
    return timedelta(hours=positive(value))


def choice(values: Mapping[str, Any]) -> Callable[[str], Any]:
    """Return a parser that takes one of these names, in any case, for its value."""
    *others, last = values

    def parse(value: str) -> Any:
        for name, meant in values.items():
            if value.lower() == name.lower():
                return meant
        raise ValueError(f"not {', '.join(others)} or {last}")

    return parse


switch = choice({"on": True, "off": False})


def title(value: str) -> str:
    """Return a name that fits into one line; raise ValueError for other texts."""
    if not value or len(value) > 40 or not value.isprintable():
        raise ValueError("not 1 to 40 printable characters")
    return value


def header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", value, re.ASCII):
        raise ValueError("not the name of a header, such as X-Forwarded-User")
    return value


def encryption_keys(value: str) -> tuple[tuple[str, bytes], ...]:
    keys: dict[str, bytes] = {}
    for item in items(value):
        name, colon, text = item.partition(":")
        if not colon or not _KEY_NAME.fullmatch(name):
            raise ValueError("not of the form id:key,… (an id is 1 to 16 letters, digits, _ and -)")
        try:
            key = b64decode(text, validate=True)
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"the key {name} is not base64 of {_KEY_BYTES} bytes; make one: openssl rand -base64 32")
        if name in keys or key in keys.values():
            raise ValueError(f"the key {name} occurs twice; each key needs its own id")
        keys[name] = key
    return tuple(keys.items())


def directory(value: str) -> Path:
    return Path(value).absolute()


def path(value: str) -> Path | None:
    return Path(value).absolute() if value else None


def size(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 50:
        raise ValueError("not a number of bytes above 0")
    return int(value)


def count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 10**9:
        raise ValueError("not a whole number; 0 means no limit")
    return int(value)


def interval(value: str) -> timedelta:
    return timedelta(seconds=count(value))


def days(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 36500:
        raise ValueError("not a whole number of days up to 36500; 0 means forever")
    return int(value)


AUDIT_DAYS_MIN = 180


def audit_days(value: str) -> int:
    number = days(value)
    if 0 < number < AUDIT_DAYS_MIN:
        raise ValueError(
            f"below {AUDIT_DAYS_MIN}: China's Cybersecurity Law requires six months of logs; set more, or 0 for forever"
        )
    return number


def thresholds(value: str) -> tuple[tuple[str, int], ...]:
    rows = []
    for item in items(value):
        account, _, number = item.rpartition(":")
        if (account and not _ACCOUNT.fullmatch(account)) or not number.isascii() or not number.isdigit():
            raise ValueError("not a number of messages, or account:number,…")
        rows.append((account, int(number)))
    return tuple(rows)


def alarm_urls(value: str) -> tuple[tuple[str, str, str], ...]:
    rows: list[tuple[str, str, str]] = []
    for item in items(value):
        kind, _, rest = item.partition(":")
        url, _, secret = rest.partition("#")
        if kind not in ALARM_KINDS:
            raise ValueError(f"not of the form kind:URL,… (a kind is one of {', '.join(ALARM_KINDS)})")
        if secret and kind not in _ALARM_KINDS_THAT_SIGN:
            raise ValueError(f"{kind} has no signature: remove the text after #")
        (collector_url if kind == "url" else secure_url)(url)
        if (kind, url) in [row[:2] for row in rows]:
            raise ValueError(f"a URL of {kind} occurs twice")
        rows.append((kind, url, secret))
    return tuple(rows)


def syslog(value: str) -> str:
    parse_address(value)
    return value


def percent(value: str) -> float:
    number = positive(value)
    if number >= 100:
        raise ValueError("not a percentage above 0 and below 100")
    return number


def http_url(value: str) -> str:
    """Return a URL without the slash at its end. Raises ValueError, also if it has a query or a user."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("not a URL of the form https://HOST/PATH")
    return value.rstrip("/")


def proxy(value: str) -> str:
    """Return the URL of an HTTP proxy. Raises ValueError, which never repeats it: it may have a password."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("not a URL of the form http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    return value


def secure_url(value: str) -> str:
    """Return a URL that is safe from eavesdropping: HTTPS, or HTTP within this machine. Raises ValueError."""
    parts = urlsplit(value)
    host = parts.hostname or ""
    near = is_loopback(host)
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and near)):
        raise ValueError("not a URL of the form https://HOST/PATH (http:// only within this machine)")
    return value


def collector_url(value: str) -> str:
    """Return a URL as secure_url does, or of plain HTTP, for a collector in the own network. Raises ValueError."""
    if urlsplit(value).scheme != "http":
        return secure_url(value)
    if not urlsplit(value).hostname:
        raise ValueError("not a URL of the form http://HOST/PATH")
    return value


def issuer(value: str) -> str:
    http_url(value)
    return secure_url(value)  # unchanged: a slash at its end is part of the provider's name


def roles(value: str) -> tuple[tuple[str, str], ...]:
    rows = []
    for item in items(value):
        claimed, _, role = (part.strip() for part in item.rpartition(":"))
        if not claimed or role not in ROLES:
            raise ValueError(f"not of the form value:role,… (a role is one of {', '.join(ROLES)})")
        rows.append((claimed, role))
    return tuple(rows)


def claim(value: str) -> str:
    if not all(value.split(".")) or " " in value or not value.isprintable():
        raise ValueError("not the name of a claim, such as groups, or a path, such as realm_access.roles")
    return value


def opt_out_words(value: str) -> OptOutWords:
    return OptOutWords(words(value))


def opt_out_phrases(value: str) -> tuple[str, ...]:
    return OptOutWords((), words(value)).phrases


_SEPARATORS = re.compile(r"[,;|\n\uff0c\uff1b\uff5c\u3001]")


def words(value: str) -> list[str]:
    """Return the words of a list with any common separator; blanks separate words only if nothing else does."""
    parts = [part.strip() for part in _SEPARATORS.split(value) if part.strip()]
    return parts if len(parts) > 1 else value.split() if not _SEPARATORS.search(value) else parts


def items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]
