"""The garbage collector, which finds none in modules that are imported."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, which then never looks at what was imported.

    Else it does so over and over, the last time at the exit: a third of the time that a short command takes. And in a
    server, each of those looks would delay a push.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
