"""Why a database cannot be reached, for the operator: never a password, never a statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVER = re.compile(
    r'connection to server (?:at|on socket) "([^"]+)"(?: \([^)]*\))?(?:, port (\d+))? failed: ([^\n;]*)'
)
_NAME = re.compile(r"failed to resolve host '([^']+)'")
_SERVER_FAULTS = (  # part of the driver's error, and its meaning
    ("connection refused", "refuses connections: is PostgreSQL running there, and on that port?"),
    ("no such file", "is not there: is PostgreSQL running on this machine?"),
    ("no answer in time", "does not answer in time: is it up, and does a firewall let us through?"),
    ("no route to host", "cannot be reached from here: no route to it"),
    ("network is unreachable", "cannot be reached from here: no route to it"),
    ("too many clients", "accepts no more connections: raise max_connections, or use fewer workers"),
    ("remaining connection slots", "accepts no more connections: raise max_connections, or use fewer workers"),
    ("starting up", "is starting"),
    ("shutting down", "is shutting down"),
    ("in recovery mode", "is recovering"),
    ("no pg_hba.conf entry", "does not let this address in: add it to pg_hba.conf"),
    ("ssl", "and we do not agree on TLS: see sslmode"),
)
_FILE_FAULTS = (
    ("disk is full", "the disk is full"),
    ("readonly database", "its file, or the directory, may not be written by this user"),
    ("unable to open database file", "its file, or the directory, may not be opened by this user"),
    ("disk i/o error", "the disk fails to read or write"),
    ("database is locked", "another process holds its lock"),
)


def explain(text: str) -> str | None:
    """Return the reason in a driver's error, one for each server tried; None: it has none."""
    found = dict.fromkeys([*_unreachable(text), *_unusable(text)])
    return "; ".join(found) or None


def _unreachable(text: str) -> Iterator[str]:
    for name in _NAME.findall(text):
        yield f"the name {name} is not known: mistyped, or the name server is unavailable"
    for host, port, said in _SERVER.findall(text):
        what = next((words for sign, words in _SERVER_FAULTS if sign in said.lower()), "fails")
        yield f"{host}{f':{port}' if port else ''} {what}"


def _unusable(text: str) -> Iterator[str]:
    yield from (words for sign, words in _FILE_FAULTS if sign in text.lower())
