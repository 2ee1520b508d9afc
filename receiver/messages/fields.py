"""What readers outside see of a row: its fields, said once, beside the attributes of the row's class.

The API's schemas, the columns of files and of views for SQL, the payloads of webhooks, and the events of API and
command line follow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from receiver.core import iso_milliseconds, iso_seconds, mask_inside, mask_mobile, mask_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Row = TypeVar("Row")


class FieldType(StrEnum):
    """The type of a field."""

    TEXT = "text"
    WORD = "word"  # letters, digits, `*`, `_`, `.` and `-` alone, as accounts and numbers are by their parsers
    PLATFORM_TIME = "platform_time"  # ISO 8601, UTC, whole seconds
    OUR_TIME = "our_time"  # with milliseconds: ours, or the sender's
    NUMBER = "number"
    ID = "id"  # text in JSON, where JavaScript would round it; a number where columns have types, to join by
    UUID = "uuid"
    COUNT = "count"
    BOOLEAN = "boolean"
    TEXTS = "texts"  # texts by name


TIMES = frozenset({FieldType.PLATFORM_TIME, FieldType.OUR_TIME})

# How a value is written in JSON; null stays null.
TO_JSON: Mapping[FieldType, Callable[[Any], Any]] = {
    FieldType.TEXT: str,
    FieldType.WORD: str,
    FieldType.PLATFORM_TIME: iso_seconds,
    FieldType.OUR_TIME: iso_milliseconds,
    FieldType.NUMBER: float,
    FieldType.ID: str,
    FieldType.UUID: str,
    FieldType.COUNT: int,
    FieldType.BOOLEAN: bool,
    FieldType.TEXTS: dict,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a row. Its name, and whether it may be null, follow from the attribute that it annotates."""

    type: FieldType
    description: str
    choices: Sequence[str] | None = None
    written_by_people: bool = False  # may look like a spreadsheet's formula
    repeats: bool = False  # has few distinct values
    name: str = ""
    nullable: bool = False


@cache
def fields_of(row_type: Any) -> tuple[Field, ...]:
    """Return the fields of a row's class: its attributes that are annotated with a `Field`."""
    found = []
    for attribute in dataclasses.fields(row_type):
        if get_origin(attribute.type) is Annotated:
            value_type, field = get_args(attribute.type)
            found.append(replace(field, name=attribute.name, nullable=type(None) in get_args(value_type)))
    return tuple(found)


def as_json(row: Any) -> dict[str, Any]:
    """Return a row as values of JSON, with numbers and contents in full."""
    return {
        field.name: None if (value := getattr(row, field.name)) is None else TO_JSON[field.type](value)
        for field in fields_of(row.__class__)
    }


def without_numbers(row: Row) -> Row:
    """Return a row with its number masked, and those in a reply's text and in what the platform does not document."""
    changes: dict[str, Any] = {"mobile": mask_mobile(row.mobile)}  # type: ignore[attr-defined]
    if content := getattr(row, "content", None):
        changes["content"] = mask_inside(content)
    if extra := getattr(row, "extra", None):
        changes["extra"] = mask_texts(extra)
    return replace(row, **changes)  # type: ignore[type-var]
