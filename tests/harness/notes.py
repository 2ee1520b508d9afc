"""Notes of the staff, written without the console."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from receiver.messages.notes import NoteKind, add_note
from tests.harness.factories import NOON

if TYPE_CHECKING:
    from datetime import datetime

    from receiver.runtime import Runtime


def write_note(
    runtime: Runtime, message_id: int, text: str = "", kind: NoteKind = NoteKind.NOTE, *, now: datetime = NOON
) -> None:
    """Add an entry to the case of a message."""
    work = partial(add_note, message_id=message_id, kind=kind, user_name="sue", text=text, now=now)
    runtime.database.write(work)
