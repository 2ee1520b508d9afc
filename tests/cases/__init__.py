"""Cases from outside: what somebody met, here or elsewhere, what is right, and what holds it now.

Each source has a table, `SOURCE.toml` beside this file, of `[[case]]`s:

    from     where it came from, as SOURCE NUMBER; `SOURCES` says what that is
    is       the case, in words
    given    what comes in
    right    what must become of it
    pushes   the cases of `tests/payloads` that hold it, by name; one that ends in `*` means all that begin so
    sends    a list of sends, each as JSON with what is `kept` of it or what is said where it is `refused`
    tests    the tests that hold what is neither, as FILE::FUNCTION

`tests/test_cases.py` runs `pushes` and `sends`; `NOT_BUILT` names what nothing holds yet, and why. `pasted.toml`, the
texts that people paste into a look-up, has a form of its own.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = {
    "bugs": "public bug reports of other projects, tried here",
    "reports": "a second round of public bug reports",
    "senders": "real HTTP clients against pushes, the proxy for senders and the stand-in",
    "attack": "attempts to make it lose a push or stop answering",
    "tools": "tools of reporting jobs",
    "ux": "a newcomer, a support agent and an operations engineer",
}

NOT_BUILT = (
    # A number's rows are found, matched and forgotten by its spelling: another one would have to move what is stored.
    ("bugs beside", "+44 07911 … keeps the zero: whether one belongs there differs by country (+39 and +225 have it)"),
    ("bugs beside", "0571-… and +86 571 … are two numbers: landlines, which the platform does not send to"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """A send as it is recorded over the API."""

    json: str
    kept: str = ""  # fields of the message, as JSON
    refused: str = ""  # what is said, as JSON: a text by field


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table."""

    source: str
    name: str
    given: str
    right: str
    pushes: tuple[str, ...]
    sends: tuple[Send, ...]
    tests: tuple[str, ...]


def load() -> tuple[Row, ...]:
    """Return the rows of all tables."""
    return tuple(row for source in SOURCES for row in _rows(source))


def _rows(source: str) -> list[Row]:
    """Return the rows of one table."""
    table: dict[str, list[dict[str, Any]]] = tomllib.loads(
        (Path(__file__).parent / f"{source}.toml").read_text(encoding="utf-8")
    )
    return [
        Row(
            source=case.pop("from"),
            name=case.pop("is"),
            given=case.pop("given"),
            right=case.pop("right"),
            pushes=tuple(case.pop("pushes", ())),
            sends=tuple(Send(**send) for send in case.pop("sends", ())),
            tests=tuple(case.pop("tests", ())),
            **case,  # nothing: a name that is none is an error
        )
        for case in table["case"]
    ]
