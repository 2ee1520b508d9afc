"""Files for people: the columns that they look for, in their language and time. Those for programs have none of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from receiver.core import in_zone
from receiver.messages.fields import TIMES, FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from receiver.messages.export_columns import Export
    from receiver.messages.fields import Field


_WIDTHS: Mapping[str, int] = {"content": 60, "error_message": 40}  # in characters
_USUAL, _NARROW = 20, 12
_SHORT = frozenset({FieldType.BOOLEAN, FieldType.COUNT, FieldType.ID, FieldType.NUMBER})


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """How a list is written for people, in one language."""

    # Of the columns, by field, in their order. Other fields are left out, except for the id, by which rows are read.
    headings: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]  # of fields that have few, by field; one that is not here is kept
    yes: str
    no: str

    def columns_of(self, export: Export) -> Export:
        """Return an export with these columns alone."""
        by_name = {column.field.name: column for column in export.columns}
        return replace(export, columns=tuple(by_name[name] for name in self.headings))

    def titled(self, fields: Iterable[Field]) -> tuple[Field, ...]:
        """Return the fields of the columns under their headings; what is yes or no is a text then."""
        return tuple(
            replace(
                field,
                name=self.headings[field.name],
                type=FieldType.TEXT if field.type is FieldType.BOOLEAN else field.type,
            )
            for field in fields
        )

    def widths(self, fields: Iterable[Field]) -> list[int]:
        """Return how wide the columns are in a workbook."""
        return [_WIDTHS.get(field.name, _NARROW if field.type in _SHORT else _USUAL) for field in fields]

    def iter_cells(
        self, fields: Sequence[Field], rows: Iterable[Sequence[str]], *, zone: ZoneInfo | None
    ) -> Iterator[list[str]]:
        """Yield rows with their values in words; `zone`: of the times, None: they stay as they are."""
        answers = {"true": self.yes, "false": self.no}

        def writer_of(field: Field) -> Callable[[str], str]:
            if field.type in TIMES and zone is not None:
                return lambda text: _local(text, zone)
            words = answers if field.type is FieldType.BOOLEAN else self.values.get(field.name, {})
            return lambda text: words.get(text, text)

        writers = list(map(writer_of, fields))
        for row in rows:
            yield [write(text) for write, text in zip(writers, row, strict=True)]


def _local(text: str, zone: ZoneInfo) -> str:
    """Return a time of the zone as spreadsheets read it; what is no time as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # empty, or of a damaged row
        return text
    return f"{in_zone(moment, zone):%Y-%m-%d %H:%M:%S}"
