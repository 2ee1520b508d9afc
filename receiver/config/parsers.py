"""What a setting may be: from its text to what Settings holds. ValueError says what is wrong, never the value."""

from __future__ import annotations

import logging
import re
from base64 import b64decode
from datetime import UTC, datetime
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from receiver.core import parse_address

Network = IPv4Network | IPv6Network

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
_PORT = re.compile(r"\d{1,5}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,}", re.ASCII)
_ACK_BODY_MAX_CHARS = 255  # the platform's console keeps no more of an answer
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,16}", re.ASCII)
_KEY_BYTES = 32
_LOG_LEVELS = ("debug", "info", "warning", "error")
ROLES = ("support", "analyst", "admin")  # of staff, the least first
ALARM_KINDS = ("dingtalk", "wecom", "feishu", "url")  # whom `receiver run alarms` can tell
_ALARM_KINDS_THAT_SIGN = ("dingtalk", "feishu")
ALARM_LANGUAGES = ("en", "zh-CN")


def unquoted(value: str) -> str:
    """Return a value of the environment as it is. Raises ValueError where it is in quotation marks.

    `docker run --env-file` and lists of compose keep them; a path or a word would be another one with them.
    """
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        raise ValueError("in quotation marks, which would be part of it: leave them out")
    return value


def database_url(value: str) -> str:
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


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file. In a URL `?` ends the file's name, and `%` begins a character."""
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
    if "@" in found.get("host", ""):  # the rest of a password, which every word about that host would show
        raise ValueError("an @ in a host's name; the @ of a password is written as %40")
    ports = found.get("port", "").split(",")
    if any(port and not (port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise ValueError("a port is not a number from 1 to 65535; special characters of a password are written as %XX")
    return len(found.get("host", "").split(",")), found.get("target_session_attrs")


def address(value: str) -> tuple[str, int]:
    """Read HOST:PORT. Raises ValueError; what may mean every address of a machine has to be written out."""
    host, colon, port = value.rpartition(":")
    if not _PORT.fullmatch(port) or int(port) > 65535 or (colon and host not in ("", "*") and not _is_host(host)):
        raise ValueError("not an address of the form HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000, without http://")
    if host in ("", "*"):
        raise ValueError(
            "HOST is missing; write 127.0.0.1:PORT for this machine alone, 0.0.0.0:PORT or [::]:PORT for every address"
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
    found: list[Network | str] = []
    for item in items(value):
        try:
            found.append(ip_network(item))
        except ValueError:
            if not _HOST_NAME.fullmatch(item) or item.rpartition(".")[2].isdigit():
                raise ValueError(
                    "not a list of networks, addresses and host names, such as 10.0.0.0/8,hooks.internal"
                ) from None
            found.append(item.lower())
    return tuple(found)


def tokens(value: str) -> tuple[tuple[str, str], ...]:
    tokens: dict[str, str] = {}
    for item in items(value):
        account, colon, secret = item.partition(":")
        if not colon or not _ACCOUNT.fullmatch(account):
            raise ValueError("not of the form account:secret,… (an account is letters, digits, _, . and -)")
        if not _SECRET.fullmatch(secret):
            raise ValueError(f"the secret of {account} must be letters, digits, _ and -, at least 22 of them")
        if tokens.setdefault(secret, account) != account:
            raise ValueError(f"{tokens[secret]} and {account} share a secret; give each its own")
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
        raise ValueError(f"over {_ACK_BODY_MAX_CHARS} characters, which is all that the platform keeps")
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


# Written in a format and read again, each must come out as it was: no two of their parts are the same.
_SAMPLES = (datetime(2026, 11, 23, 21, 14, 56, tzinfo=UTC), datetime(2031, 2, 4, 3, 5, 7, tzinfo=UTC))
_DIRECTIVE = re.compile("%(.)")
_WRONG_SEPARATORS = re.compile("[,|\uff0c\uff1b\u3001]")


def formats(value: str) -> tuple[str, ...]:
    """Read forms of a date and time. Raises ValueError for one that reads no whole date and time."""
    found = tuple(item for item in (part.strip() for part in value.split(";")) if item)
    for place, item in enumerate(found, 1):
        if (fault := _format_fault(item)) is None:
            continue
        parts = [part.strip() for part in _WRONG_SEPARATORS.split(item)]
        if len(parts) > 1 and not any(map(_format_fault, parts)):
            fault = "these are several; write ; between them"
        raise ValueError(f"form {place}: {fault}")
    return found


def _format_fault(item: str) -> str | None:
    """Say why a form reads no date and time; None: it does."""
    directives = [name for name in _DIRECTIVE.findall(item) if name != "%"]
    twice = next((name for name in directives if directives.count(name) > 1), None)
    if twice is not None:
        return f"%{twice} is there twice" + ("; minutes are %M, months %m" if twice in "mM" else "")
    for sample in _SAMPLES:
        try:
            if datetime.strptime(sample.strftime(item), item).replace(tzinfo=UTC) == sample:
                continue
        except (ValueError, re.error):
            return "Python's strptime does not take it; the usual one is %Y-%m-%d %H:%M:%S"
        return "it does not give year, month, day, hour, minute and second; the usual one is %Y-%m-%d %H:%M:%S"
    return None


def positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise ValueError("not a number above 0 and below 1,000,000")
    return number


def switch(value: str) -> bool:
    if value.lower() not in ("on", "off"):
        raise ValueError("not on or off")
    return value.lower() == "on"


def log_level(value: str) -> int:
    if value.lower() not in _LOG_LEVELS:
        raise ValueError(f"not one of {', '.join(_LOG_LEVELS)}")
    return logging.getLevelNamesMapping()[value.upper()]


def log_format(value: str) -> str:
    if value.lower() not in ("json", "console"):
        raise ValueError("not json or console")
    return value.lower()


def required(value: str) -> bool:
    if value.lower() not in ("required", "optional"):
        raise ValueError("not required or optional")
    return value.lower() == "required"


def enforced(value: str) -> bool:
    if value.lower() not in ("enforce", "observe"):
        raise ValueError("not enforce or observe")
    return value.lower() == "enforce"


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
            raise ValueError(f"the key {name} is named twice; a new key needs an id of its own")
        keys[name] = key
    return tuple(keys.items())


def path(value: str) -> Path | None:
    return Path(value).absolute() if value else None


def size(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1 << 50:
        raise ValueError("not a number of bytes above 0")
    return int(value)


def count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 10**9:
        raise ValueError("not a whole number; 0 is no limit")
    return int(value)


def days(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) > 36500:
        raise ValueError("not a whole number of days up to 36500; 0 is for ever")
    return int(value)


AUDIT_DAYS_MIN = 180


def audit_days(value: str) -> int:
    number = days(value)
    if 0 < number < AUDIT_DAYS_MIN:
        raise ValueError(
            f"below {AUDIT_DAYS_MIN}: China's Cybersecurity Law asks for six months of logs; take more, or 0 for ever"
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
            raise ValueError(f"{kind} signs nothing: leave out what is after #")
        (collector_url if kind == "url" else secure_url)(url)
        if (kind, url) in [row[:2] for row in rows]:
            raise ValueError(f"a URL of {kind} is named twice")
        rows.append((kind, url, secret))
    return tuple(rows)


def syslog(value: str) -> str:
    parse_address(value)
    return value


def alarm_language(value: str) -> str:
    if value not in ALARM_LANGUAGES:
        raise ValueError(f"not one of {', '.join(ALARM_LANGUAGES)}")
    return value


def percent(value: str) -> float:
    number = positive(value)
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


def collector_url(value: str) -> str:
    """Take a URL as secure_url does, or of plain HTTP: an own collector may be near enough. Raises ValueError."""
    if urlsplit(value).scheme != "http":
        return secure_url(value)
    if not urlsplit(value).hostname:
        raise ValueError("not a URL of the form http://HOST/PATH")
    return value


def issuer(value: str) -> str:
    http_url(value)
    return secure_url(value)  # as it is: a slash at its end is part of the provider's name


def roles(value: str) -> tuple[tuple[str, str], ...]:
    rows = []
    for item in items(value):
        held, _, role = (part.strip() for part in item.rpartition(":"))
        if not held or role not in ROLES:
            raise ValueError(f"not of the form value:role,… (a role is one of {', '.join(ROLES)})")
        rows.append((held, role))
    return tuple(rows)


def claim(value: str) -> str:
    if not all(value.split(".")) or " " in value or not value.isprintable():
        raise ValueError("not the name of a claim, such as groups, nor a path such as realm_access.roles")
    return value


_PARTED = re.compile(r"[,;|\n\uff0c\uff1b\uff5c\u3001]")


def words(value: str) -> list[str]:
    """Read words, parted by whatever people part them by; blanks part them where nothing else does."""
    parts = [part.strip() for part in _PARTED.split(value) if part.strip()]
    return parts if len(parts) > 1 else value.split() if not _PARTED.search(value) else parts


def items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]
