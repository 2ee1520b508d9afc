"""The catalogues of texts: one for console, alarms and command line, with or without a request.

The ids are the English texts, so English needs no catalogue. `make translations` collects them from the sources.
"""

from __future__ import annotations

from functools import cache
from gettext import translation
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = Path(__file__).parent
# Language tag: Babel's name of the locale, under which its catalogue is stored.
CATALOGUES = {"zh-CN": "zh_Hans_CN", "en": "en"}


def N_(text: str) -> str:  # noqa: N802  (gettext's usual name)
    """Return a text as it is. It marks the text for the catalogue where it is translated elsewhere."""
    return text


@cache
def gettext_of(language: str) -> Callable[[str], str]:
    """Return the function that returns a text in a language; unchanged if the catalogue does not have it."""
    return translation("messages", DIRECTORY, [CATALOGUES[language]], fallback=True).gettext
