"""Raw pushes and what must become of them: the contract's promises about a payload, one by one."""

from tests.payloads import encodings, fields, kinds, numbers, times, transport, wire
from tests.payloads.case import Case

CASES: tuple[Case, ...] = (
    *encodings.CASES,
    *fields.CASES,
    *numbers.CASES,
    *times.CASES,
    *kinds.CASES,
    *transport.CASES,
    *wire.CASES,
)

__all__ = ["CASES", "Case"]
