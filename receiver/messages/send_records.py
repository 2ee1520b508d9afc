"""Records of sends as senders hand them in: an item of the API, a line of an import."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from receiver.core import (
    CONTROL,
    TASK_ID_MAX_CHARS,
    TEXT_MAX_CHARS,
    InputFault,
    ReceiverError,
    SentMessage,
    implausible,
    is_masked,
    parse_mobile,
    whole_milliseconds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

_ACCOUNT_MAX_CHARS = 64
_FIRST_YEAR, _LAST_YEAR = 1970, 9000  # of filters
_WHOLE_NUMBER = re.compile(r"(-?\d{1,9})(?:\.0+)?", re.ASCII)  # data frames write 1.0
_ROUNDED = re.compile(r"[+-]?\d+(?:[.,]\d*)?[Ee]\+\d+", re.ASCII)
_FLOAT = re.compile(r"[+-]?\d+\.0+", re.ASCII)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+", re.ASCII)
_KEPT_DIGITS = 15  # of a number in a spreadsheet
_EMPTY_WORDS = frozenset({"null", "(null)", "\\n", "none", "nan", "nat", "n/a", "#n/a", "<na>", "undefined"})
_MARKED_NUMBER = re.compile(r"'\d+", re.ASCII)
_PLAIN_DIGITS = {0xFF10 + digit: str(digit) for digit in range(10)}  # for those of full width
_DATE_DIGITS = 8
_MISSING = "missing"


class SendFieldType(Enum):
    """What the value of a field is. Ids, counts and numbers may be given as text or as integers."""

    ID = auto()
    TEXT = auto()
    WORDS = auto()  # the platform's
    MOBILE = auto()
    TIME = auto()
    COUNT = auto()
    RETURN_STATUS = auto()


@dataclass(frozen=True, slots=True)
class SendField:
    """A field of a record; the description of the API follows from it."""

    type: SendFieldType
    max_chars: int = TEXT_MAX_CHARS
    required: bool = False


FIELDS: Mapping[str, SendField] = {
    "task_id": SendField(SendFieldType.ID, TASK_ID_MAX_CHARS),
    "mobile": SendField(SendFieldType.MOBILE, required=True),
    "account": SendField(SendFieldType.TEXT, _ACCOUNT_MAX_CHARS),
    "template_id": SendField(SendFieldType.ID),
    "reference": SendField(SendFieldType.TEXT),
    "sent_at": SendField(SendFieldType.TIME),
    "success_counts": SendField(SendFieldType.COUNT),
    "remain_point": SendField(SendFieldType.COUNT),
    "return_status": SendField(SendFieldType.RETURN_STATUS),
    "message": SendField(SendFieldType.WORDS),
}


class InvalidSendRecord(ReceiverError):
    """A record that cannot be used. `faults` maps each invalid field to its error."""

    def __init__(self, faults: Mapping[str, str], *, closed: bool = False) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in faults.items()))
        self.faults = dict(faults)
        self.closed = closed  # the account exists, but is not this caller's


@dataclass(frozen=True, kw_only=True, slots=True)
class SendRecordParser:
    """Reads records for one caller."""

    zone: ZoneInfo  # of times without an offset
    accounts: frozenset[str]  # configured
    allowed: frozenset[str] | None = None  # the caller's own; None: all

    def read(self, item: Mapping[str, Any]) -> SentMessage:
        """Return one record as a value. Raises InvalidSendRecord, naming every invalid field.

        An empty text or null counts as not given. Numbers may be text and ids numbers, as in the platform's own answer;
        `return_status` "0" makes it the record of a refused send.
        """
        faults: dict[str, str] = {str(name): "unknown field" for name in item if name not in FIELDS}
        return_status = _whole_number(item, "return_status", faults)
        if return_status not in (None, 0, 1) or "return_status" in faults:
            faults["return_status"] = "not 0 or 1"
        refused = return_status == 0
        sent = SentMessage(
            account=self._account(_text(item, "account", faults), faults),
            mobile=_mobile(item, faults),
            task_id=_id(item, "task_id", faults),
            template_id=_id(item, "template_id", faults),
            reference=_text(item, "reference", faults),
            sent_at=self._time(item, faults),
            success_counts=_whole_number(item, "success_counts", faults),
            remain_point=_whole_number(item, "remain_point", faults),
            # The platform sends `message` for accepted sends too: valid, but not stored.
            error_message=None if return_status == 1 else _text(item, "message", faults),
        )
        required = ("reference", "sent_at", "error_message") if refused else ("task_id",)
        closed = "task_id" if refused else "error_message"
        for name in required:
            if getattr(sent, name) is None:
                faults.setdefault(_given_name(name), _MISSING)
        if getattr(sent, closed) is not None:
            faults.setdefault(_given_name(closed), "does not go with this return_status")
        if faults:
            raise InvalidSendRecord(faults)
        return sent

    def _account(self, asked: str | None, faults: dict[str, str]) -> str:
        choices = self.accounts if self.allowed is None else self.accounts & self.allowed
        if asked is None and len(choices) == 1:
            return next(iter(choices))
        if asked is None:
            faults.setdefault("account", "several accounts are configured: say which")
        elif asked not in self.accounts:
            faults.setdefault("account", "no such account is configured")
        elif asked not in choices:
            raise InvalidSendRecord({"account": "this key is bound to other accounts"}, closed=True)
        return asked or ""

    def _time(self, item: Mapping[str, Any], faults: dict[str, str]) -> datetime | None:
        text = _text(item, "sent_at", faults)
        if text is None:
            return None
        try:
            moment = parse_time(text, self.zone)
        except ValueError as error:
            faults["sent_at"] = str(error)
            return None
        if (fault := implausible(moment, datetime.now(UTC), self.zone)) is not None:
            faults["sent_at"] = fault
        return moment


def parse_time(text: str, zone: ZoneInfo) -> datetime:
    """Return ISO 8601 with or without an offset (without: of `zone`) as UTC in whole milliseconds.

    Raises ValueError.
    """
    try:
        if text.isdigit() and len(text) != _DATE_DIGITS:
            raise ValueError  # seconds since 1970 and the like, which may look like a date and an hour
        moment = datetime.fromisoformat(text)
        return whole_milliseconds((moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise ValueError(InputFault.NOT_A_TIME) from None


def parse_filter_time(text: str, zone: ZoneInfo) -> datetime:
    """Return a time of a filter, as `parse_time` does; outside the years of our rows, their nearest bound.

    So "from the year 1" and "to the year 9999" work, and so does arithmetic with the result. Raises ValueError.
    """
    try:
        year = datetime.fromisoformat(text).year
    except ValueError:
        year = _FIRST_YEAR
    if year < _FIRST_YEAR:
        return datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC)
    if year > _LAST_YEAR:
        return datetime(_LAST_YEAR, 1, 1, tzinfo=UTC)
    return parse_time(text, zone)


def _given_name(name: str) -> str:
    return "message" if name == "error_message" else name


def _text(item: Mapping[str, Any], name: str, faults: dict[str, str]) -> str | None:
    value = item.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        faults[name] = "not text"
        return None
    text = str(value).strip()
    if CONTROL.search(text):
        faults[name] = "control character"
    elif len(text) > (max_chars := FIELDS[name].max_chars):
        faults[name] = f"over {max_chars} characters"
    return text or None


def _id(item: Mapping[str, Any], name: str, faults: dict[str, str]) -> str | None:
    """Return an id without invisible marks; a fault if a program has damaged it.

    Otherwise its receipts would never match it.
    """
    text = _text(item, name, faults)
    if text is None:
        return None
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf").strip()
    plain = text.translate(_PLAIN_DIGITS)
    if plain.isascii() and plain.isdigit():
        text = plain
    if _THOUSANDS.fullmatch(text) and len(digits := text.replace(",", "")) <= _KEPT_DIGITS:
        text = digits  # a spreadsheet's number, as displayed
    if fault := _spoilt(text):
        faults.setdefault(name, fault)
    return text or None


def _spoilt(text: str) -> str | None:
    """Return how a spreadsheet or data frame has damaged an id; None: it has not."""
    if _THOUSANDS.fullmatch(text):
        return "a number of a spreadsheet, rounded beyond 15 digits: format its column as text and export the ids again"
    if _ROUNDED.fullmatch(text):
        return "rounded to the form 1.2E+18 by a spreadsheet: format its column as text and export the ids again"
    if _FLOAT.fullmatch(text):
        return "made a number with .0 by a spreadsheet or data frame: read its column as text and export it again"
    if text.lower() in _EMPTY_WORDS:
        return "a word for no value: leave the cell empty"
    if _MARKED_NUMBER.fullmatch(text):
        return "begins with a spreadsheet's text apostrophe: remove it"
    return None


def _mobile(item: Mapping[str, Any], faults: dict[str, str]) -> str:
    text = _text(item, "mobile", faults)
    number = parse_mobile(text) if text else None
    if text is None:
        faults.setdefault("mobile", _MISSING)
    elif _ROUNDED.fullmatch(text):
        faults.setdefault("mobile", _spoilt(text) or "")
    elif number is None:
        faults.setdefault("mobile", "not a phone number")
    elif is_masked(number):
        faults.setdefault("mobile", "masked: the full number is needed")
    return number or ""


def _whole_number(item: Mapping[str, Any], name: str, faults: dict[str, str]) -> int | None:
    text = _text(item, name, faults)
    if text is None:
        return None
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None:
        faults.setdefault(name, "not a whole number")
        return None
    return int(match[1])
