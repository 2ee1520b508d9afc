"""Unknown names that look like settings, each with the nearest setting."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PREFIX = "RECEIVER_"
_ALIKE = 0.6  # difflib's ratio, of the text after the prefix
_SAME = 0.85  # for a misspelt prefix, such as RECIEVER_BIND
_OTHERS = re.compile("RECEIVER_(API_KEY|IMAGE|TEST_.*)")  # of a command, of the Compose file, of the tests
# Set by Kubernetes and by Docker's links for a service named receiver, or receiver-… .
_OF_SERVICES = re.compile(
    r"RECEIVER_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)|"
    r"RECEIVER_(NAME|ENV_\w+)"
)
_PORT_OF_SERVICE = re.compile(r"RECEIVER_(\w+_)?PORT")


def find_unknown(environment: Mapping[str, str | None], known: Collection[str]) -> tuple[str, ...]:
    """Return a warning for each unknown name that looks like a setting, never with its value."""
    names = frozenset(known) | {f"{name}_FILE" for name in known}
    return tuple(
        _warning(name, names)
        for name, value in sorted(environment.items())
        if name not in names and _looks_like_setting(name, names) and not _is_of_others(name, value or "")
    )


def _looks_like_setting(name: str, known: Collection[str]) -> bool:
    if name.upper().startswith(_PREFIX):
        return True
    return name.startswith("REC") and bool(get_close_matches(name, known, n=1, cutoff=_SAME))


def _is_of_others(name: str, value: str) -> bool:
    if _OTHERS.fullmatch(name) or _OF_SERVICES.fullmatch(name):
        return True
    return bool(_PORT_OF_SERVICE.fullmatch(name)) and "://" in value


def _warning(name: str, known: Collection[str]) -> str:
    ends = sorted(setting.removeprefix(_PREFIX) for setting in known)
    nearest = get_close_matches(name.upper().partition("_")[2], ends, n=1, cutoff=_ALIKE)
    return f"{name}: unknown setting{f'; did you mean {_PREFIX}{nearest[0]}?' if nearest else ''}"
