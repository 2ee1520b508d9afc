"""Fields of the API: parsing, validation and output."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma

from receiver.core import CONTROL, TEXT_MAX_CHARS, InputFault, iso_milliseconds, parse_mobile
from receiver.messages.send_records import parse_filter_time
from receiver.web import runtime

_TEXT = r"^[^\u0000-\u001f\u007f-\u009f]*$"  # `CONTROL` for JSON Schema, where half a surrogate cannot be
_INPUT_TIME = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)
MOBILE_PATTERN = r"^[+0-9][-0-9 *]{3,23}[0-9*]$"


class Text(ma.fields.String):
    """Text without control characters, of limited length."""

    def __init__(self, *, max_chars: int = TEXT_MAX_CHARS, **kwargs: Any) -> None:
        metadata = {"pattern": _TEXT, "maxLength": max_chars}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})
        self._max_chars = max_chars

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if isinstance(text, str) and CONTROL.search(text):
            raise ma.ValidationError(InputFault.CONTROL_CHARACTER)
        if isinstance(text, str) and len(text) > self._max_chars:
            raise ma.ValidationError(InputFault.TOO_LONG.format(most=self._max_chars))
        return text


class OneOf(ma.validate.OneOf):
    """One of the choices."""

    default_message = InputFault.NOT_A_CHOICE


class MobileField(ma.fields.String):
    """A phone number in any usual format; loaded as digits."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"pattern": MOBILE_PATTERN, "example": "15080921090"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        number = parse_mobile(text)
        if number is None:
            raise ma.ValidationError(InputFault.NOT_A_PHONE_NUMBER)
        return number


class InputTime(ma.fields.String):
    """A day or time as ISO 8601, with or without an offset (without: the platform's zone); loaded as UTC."""

    def __init__(self, **kwargs: Any) -> None:
        # No `format`: by `date-time`, clients would refuse a day, and a time without an offset.
        metadata = {"pattern": _INPUT_TIME, "example": "2026-11-23T09:14:03+08:00"}
        super().__init__(**kwargs | {"metadata": metadata | kwargs.get("metadata", {})})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        # In a query, an unencoded `+08:00` arrives as ` 08:00`.
        text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text) if "T" in text else text
        try:
            return parse_filter_time(text, runtime().settings.timezone)
        except ValueError as error:
            raise ma.ValidationError(error.args[0]) from None


class StrictBoolean(ma.fields.Boolean):
    """`true` or `false` only."""

    truthy = {"true", True}  # noqa: RUF012  (as in the base class)
    falsy = {"false", False}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or value in ("true", "false"):
            return super()._deserialize(value, attr, data, **kwargs)
        raise ma.ValidationError(InputFault.NOT_A_BOOLEAN)


class WholeNumber(ma.fields.Integer):
    """An integer, or a text of digits."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise ma.ValidationError(InputFault.NOT_A_NUMBER)
        if isinstance(value, bool | float):
            raise ma.ValidationError(InputFault.NOT_A_NUMBER)
        return super()._deserialize(value, attr, data, **kwargs)


class OurTime(ma.fields.DateTime):
    """A time from us or the sender: milliseconds, UTC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"metadata": {"format": "date-time"} | kwargs.get("metadata", {})})

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return None if value is None else iso_milliseconds(value)
