"""Parses the platform's pushes, from bytes to a receipt or a reply.

Source: the platform's page, section 2 (回执/回复推送接口), and reports of its users: field names in any case,
country codes, parameters in the query. `push_form` handles the form and the encoding of the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from receiver.core import (
    OPT_OUT_WORDS,
    TASK_ID_MAX_CHARS,
    FieldFault,
    Kind,
    OptOutWords,
    PushFault,
    PushFlag,
    Receipt,
    Reply,
    Unreadable,
    implausible,
    parse_mobile,
    write_faults,
)
from receiver.platform.push_form import Fields, read_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from zoneinfo import ZoneInfo


# The platform's field names, in the order in which faults are reported.
_MOBILE, _TASK_ID, _STATUS, _CONTENT, _TIME = "mobile", "taskid", "status", "content", "receivetime"
_EXTRA = "extra"  # stands in an error for any other field, whose name could itself hold data

# Around names and values. What is a control character besides, in a task id, is a fault.
_SPACES = " \t\n\v\f\r\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_TIME_FORM = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d{1,9})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STATUS_MAX_CHARS = 64
# A receipt in the platform's order of fields and with nothing to decode but its time.
_PLAIN_RECEIPT = re.compile(
    rb"mobile=(1\d{10})&task[iI]d=([0-9A-Za-z_-]{1,64})&status=([0-9A-Za-z_-]{1,64})"
    rb"&receive[tT]ime=(\d{4}-\d\d-\d\d)(?:\+|%20)([01]\d|2[0-3])(?::|%3[aA])(\d\d)(?::|%3[aA])(\d\d)"
)
_NO_EXTRA: Mapping[str, str] = MappingProxyType({})


@lru_cache(maxsize=4096)  # pushes of one second share it
def _plain_time(zone: ZoneInfo, date: bytes, hour: bytes, minute: bytes, second: bytes) -> datetime | None:
    text = f"{date.decode()}T{hour.decode()}:{minute.decode()}:{second.decode()}"
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReader:
    """Reads pushes as the platform defines them, its times as those of `zone`."""

    zone: ZoneInfo
    time_formats: Sequence[str] = ()  # further accepted forms, strptime style
    opt_out_words: OptOutWords = OPT_OUT_WORDS

    def read(
        self,
        *,
        body: bytes,
        query: bytes,
        endpoint: Kind | None,
        content_type: str | None = None,
        seen_at: datetime | None = None,
        clock: bool = True,
        shortcut: bool = True,
    ) -> tuple[Receipt | Reply | Unreadable, tuple[str, ...]]:
        """Return one push, parsed, and the flags of the corrections that parsing needed.

        The fields come from the body if it has any, else from the query. `endpoint` None: the fields decide between
        receipt and reply. `content_type`: as sent; it may declare the charset. `seen_at`: the arrival, which bounds the
        time; None: no bound, for stored pushes. `clock` False: our clock is not trusted for that bound. `shortcut`
        False: no fast path for ordinary receipts. Never raises: an invalid push is Unreadable, naming every fault.
        """
        if shortcut and (plain := self._read_plain(body or query, endpoint, seen_at)):
            return plain
        return self._read_form(_Form(read_fields(body, query, content_type)), endpoint, seen_at, clock=clock)

    def _read_plain(
        self, data: bytes, endpoint: Kind | None, seen_at: datetime | None
    ) -> tuple[Receipt, tuple[str, ...]] | None:
        """Return a receipt in the exact form of the platform's page, which nearly all have; None for any other.

        Four times as fast as `_read_form`, with the same result.
        """
        match = _PLAIN_RECEIPT.fullmatch(data)
        if match is None or endpoint is Kind.REPLY:
            return None
        mobile, task_id, status, date, hour, minute, second = match.groups()
        moment = _plain_time(self.zone, date, hour, minute, second)
        if moment is None or (seen_at is not None and implausible(moment, seen_at, self.zone)):
            return None
        return (
            Receipt(
                mobile=mobile.decode(),
                task_id=task_id.decode(),
                vendor_status=status.decode(),
                reported_at=moment,
                extra=_NO_EXTRA,
            ),
            (),
        )

    def _read_form(
        self, form: _Form, endpoint: Kind | None, seen_at: datetime | None, *, clock: bool
    ) -> tuple[Receipt | Reply | Unreadable, tuple[str, ...]]:
        kind = endpoint or form.kind()
        own_field = {Kind.RECEIPT: _STATUS, Kind.REPLY: _CONTENT}[kind]

        mobile = form.required(_MOBILE)
        number = parse_mobile(mobile) if mobile else None
        if mobile and number is None:
            form.fault(_MOBILE, PushFault.NOT_A_PHONE_NUMBER)
        taskless = kind is Kind.REPLY and form.lacks(_TASK_ID)  # a message to our number, in reply to none
        task_id = None if taskless else form.required(_TASK_ID, max_chars=TASK_ID_MAX_CHARS)
        own_value = (
            form.required(_STATUS, max_chars=_STATUS_MAX_CHARS)
            if own_field == _STATUS
            else form.required(_CONTENT, may_be_empty=True)
        )
        written_time = form.required(_TIME)
        moment = self._time(written_time, form) if written_time else None
        if moment is not None and seen_at is not None:
            self._judge_time(moment, form, seen_at, clock=clock)
        extra = form.rest({_MOBILE, _TASK_ID, _TIME, own_field}, drop_empty_status=endpoint is None)

        if form.faults:
            return Unreadable(error=form.error()), tuple(form.flags)
        if number is None or moment is None or own_value is None:
            raise AssertionError("a missing value is a fault")
        if kind is Kind.RECEIPT and task_id is not None:
            return (
                Receipt(mobile=number, task_id=task_id, vendor_status=own_value, reported_at=moment, extra=extra),
                tuple(form.flags),
            )
        return (
            Reply(
                mobile=number,
                task_id=task_id,
                content=own_value,
                replied_at=moment,
                opt_out=self.opt_out_words.judge(own_value),
                extra=extra,
            ),
            tuple(form.flags),
        )

    def _time(self, text: str, form: _Form) -> datetime | None:
        match = _TIME_FORM.fullmatch(text)
        local = _calendar_time(match) if match else self._other_form(text)
        if local is None:
            form.fault(_TIME, PushFault.NOT_ON_THE_CALENDAR if match else PushFault.NOT_A_TIME)
            return None
        if local.microsecond or (match and match[7]):
            form.flags.append(PushFlag.FRACTION_DROPPED.value)
            local = local.replace(microsecond=0)
        try:
            return (local if local.tzinfo else local.replace(tzinfo=self.zone)).astimezone(UTC)
        except OverflowError:
            form.fault(_TIME, PushFault.NOT_IN_UTC)
            return None

    def _judge_time(self, moment: datetime, form: _Form, seen_at: datetime, *, clock: bool) -> None:
        fault = implausible(moment, seen_at if clock else None, self.zone)
        if fault is not None:
            form.fault(_TIME, fault)
        elif not clock and implausible(moment, seen_at, self.zone):
            form.flags.append(PushFlag.CLOCK.value)

    def _other_form(self, text: str) -> datetime | None:
        if any(character.isdecimal() and not character.isascii() for character in text):
            return None  # strptime would accept full-width digits
        for time_format in self.time_formats:
            try:
                return datetime.strptime(text, time_format)  # noqa: DTZ007  (the zone is added by the caller)
            except (ValueError, OverflowError, re.error):  # the last two of a form that the settings would refuse
                continue
        return None


def _calendar_time(match: re.Match[str]) -> datetime | None:
    try:
        return datetime(*map(int, match.groups()[:6]))  # type: ignore[arg-type]  # noqa: DTZ001  (as above)
    except ValueError:
        return None


class _Form:
    """The fields of one push, and the faults found so far."""

    def __init__(self, fields: Fields) -> None:
        self.flags = list(fields.flags)
        self.faults: dict[str, FieldFault] = {}
        self._fields: dict[str, str] = {}
        self._damaged: set[str] = set()
        self._repeated: set[str] = set()  # given with two values
        for raw_name, raw_value, damaged in fields.found:
            name = raw_name.strip(_SPACES).lower()
            value = raw_value if name == _CONTENT else raw_value.strip(_SPACES)
            if self._fields.setdefault(name, value) != value:
                self._repeated.add(name)
            if damaged:
                self._damaged.add(name)

    def kind(self) -> Kind:
        """Return the kind: a non-empty status makes a receipt, else a content a reply."""
        if self._fields.get(_STATUS) or _CONTENT not in self._fields:
            return Kind.RECEIPT
        return Kind.REPLY

    def fault(self, name: str, fault: PushFault, *, most: int | None = None) -> None:
        """Record a field's fault; the first one of each field stands."""
        self.faults.setdefault(name, FieldFault(name, fault, most))

    def error(self) -> str:
        """Return every fault in the platform's order of fields."""
        order = (_MOBILE, _TASK_ID, _STATUS, _CONTENT, _TIME, _EXTRA)
        return write_faults([self.faults[name] for name in order if name in self.faults])

    def lacks(self, name: str) -> bool:
        """Return whether a field is missing or empty."""
        return not self._fields.get(name) and name not in self._repeated

    def required(self, name: str, *, max_chars: int | None = None, may_be_empty: bool = False) -> str | None:
        """Return a field's value; None, with a fault recorded, if it is unusable."""
        value = self._fields.get(name)
        if value is None:
            self.fault(name, PushFault.MISSING)
        elif name in self._repeated:
            self.fault(name, PushFault.TWO_VALUES)
        elif name in self._damaged and name != _CONTENT:  # half a task id is another one
            self.fault(name, PushFault.NOT_DECODED)
        elif not value and not may_be_empty:
            self.fault(name, PushFault.EMPTY)
        elif max_chars is not None and _CONTROL.search(value):
            self.fault(name, PushFault.CONTROL_CHARACTER)
        elif max_chars is not None and len(value) > max_chars:
            self.fault(name, PushFault.TOO_LONG, most=max_chars)
        return None if name in self.faults else value

    def rest(self, used: set[str], *, drop_empty_status: bool) -> dict[str, str]:
        """Return the fields that the reading did not use."""
        if self._repeated - used:
            self.fault(_EXTRA, PushFault.TWO_VALUES)
        return {
            name: value.strip(_SPACES)
            for name, value in self._fields.items()
            if name not in used and not (drop_empty_status and name == _STATUS and not value)
        }
