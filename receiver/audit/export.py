"""The audit's entries as lines, for programs, spreadsheets and people."""

from __future__ import annotations

import csv
import io
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from receiver.core import iso_milliseconds, neutral

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from receiver.audit.log import Entry

_COLUMNS = ("id", "position", "at", "actor", "action", "detail", "hash")
_ROWS_A_PIECE = 500


class AuditFormat(StrEnum):
    """The format of a file of entries."""

    CSV = "csv"
    NDJSON = "ndjson"


MEDIA_TYPES = {AuditFormat.CSV: "text/csv; charset=utf-8", AuditFormat.NDJSON: "application/x-ndjson"}


def as_fields(entry: Entry) -> dict[str, Any]:
    """Return an entry as a JSON object; position and hash are null if it is not of the chain."""
    return {
        "id": str(entry.id),
        "position": entry.position,
        "at": iso_milliseconds(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "detail": dict(entry.detail or {}),
        "hash": entry.hash.hex() if entry.hash is not None else None,
    }


def iter_audit_file(entries: Iterable[Entry], form: AuditFormat) -> Iterator[bytes]:
    """Yield entries as the pieces of a file; no cell of a CSV is a spreadsheet's formula."""
    text = io.StringIO()
    rows = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    if form is AuditFormat.CSV:
        rows.writeheader()
    for number, entry in enumerate(entries, 1):
        fields = as_fields(entry)
        if form is AuditFormat.CSV:
            detail = json.dumps(fields["detail"], ensure_ascii=False)
            rows.writerow({name: neutral(value) for name, value in (fields | {"detail": detail}).items()})
        else:
            text.write(json.dumps(fields, ensure_ascii=False) + "\n")
        if number % _ROWS_A_PIECE == 0:
            yield _pop(text)
    yield _pop(text)


def _pop(text: io.StringIO) -> bytes:
    piece = text.getvalue().encode(errors="replace")
    text.seek(0)
    text.truncate()
    return piece
