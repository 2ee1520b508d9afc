"""Reads the settings from the environment once, and checks them together."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from receiver.config import parsers as to
from receiver.config.names import find_unknown
from receiver.config.settings import PUSH_SECRET_FILE, SETTINGS, Settings
from receiver.core import SettingsError, make_directory, ownership, sync_directory, write_new_file

if TYPE_CHECKING:
    from collections.abc import Mapping


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Return the settings of the environment and `.env`. Creates the data directory and a missing push secret.

    The value of `NAME` may also be in the file that `NAME_FILE` names, or in systemd's credential `NAME`. The
    environment wins over `.env`, and both over a credential.
    Raises SettingsError naming every wrong setting.
    """
    environment = _read_environment(env_file)
    values, problems = _parse(environment)
    if problems:
        raise SettingsError("; ".join([*problems, *values["unknown"]]))
    data_dir: Path = values["data_dir"]
    make_data_dir(data_dir)
    values["database_url"] = values["database_url"] or to.sqlite_url(data_dir / "receiver.db")
    if not values["push_tokens"]:
        values["push_tokens"], values["push_tokens_generated"] = _own_push_tokens(data_dir / PUSH_SECRET_FILE)
    return Settings(**values)


def find_problems(environment: Mapping[str, str | None]) -> list[str]:
    """Return what is wrong with these settings, names that are none included."""
    values, problems = _parse(environment)
    return [*problems, *values["unknown"]]


def _parse(environment: Mapping[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values by field, with warnings of unknown names, and every problem."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field_name, setting in SETTINGS.items():
        try:
            values[field_name] = setting.parse(_raw_value(setting.name, environment) or setting.default)
        except ValueError as error:
            problems.append(f"{setting.name}: {error}")
    problems += _bind_problems(values) + _tls_problems(values) + _oidc_problems(values) + _replica_problems(values)
    problems += retention_problems(values)
    values["unknown"] = find_unknown(environment, [setting.name for setting in SETTINGS.values()])
    return values, problems


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
    setting = SETTINGS["data_dir"]
    try:
        place: Path = setting.parse(_raw_value(setting.name, environment) or setting.default)
    except ValueError as error:
        raise SettingsError(f"{setting.name}: {error}") from None
    return place


def _oidc_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what OpenID Connect lacks. An invalid setting is not in `values`, and counts as set."""
    names = ("oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_roles")
    missing = [f"RECEIVER_{name.upper()}" for name in names if not values.get(name, True)]
    if len(missing) == len(names):
        return []
    if missing:
        return [f"{', '.join(missing)}: missing; OpenID Connect needs the issuer, a client's id and secret, and roles"]
    if any(find_spec(name) is None for name in ("authlib", "joserfc")):
        return ["RECEIVER_OIDC_ISSUER: OpenID Connect needs the extra `oidc`: pip install 'receiver[oidc]'"]
    if values.get("console_user_header"):
        # Both identify users by name: a user of one could choose the name of a user of the other.
        return ["RECEIVER_CONSOLE_USER_HEADER: not together with RECEIVER_OIDC_ISSUER; set only one of them"]
    return []


def find_source(name: str, env_file: Path = Path(".env")) -> Path | str:
    """Return the file that holds a setting, or its text; empty when unset. Raises SettingsError."""
    return _source_of(name, _read_environment(env_file))


def _source_of(name: str, environment: Mapping[str, str | None]) -> Path | str:
    path, text = environment.get(f"{name}_FILE"), environment.get(name)
    credential = Path(environment.get("CREDENTIALS_DIRECTORY") or "/nowhere", name)
    if path:
        return Path(path)
    return credential if not text and credential.is_file() else to.unquoted((text or "").strip())


def _raw_value(name: str, environment: Mapping[str, str | None]) -> str:
    """Return a setting's text, or its file's content; empty when unset. Raises ValueError."""
    source = _source_of(name, environment)
    if isinstance(source, str):
        return source
    try:
        return source.read_text(encoding="utf-8-sig").strip()
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
