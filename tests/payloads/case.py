"""One raw push and what must become of it, written from the contract alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

Row = dict[str, object]
Headers = tuple[tuple[str, str], ...]

FORM: Headers = (("Content-Type", "application/x-www-form-urlencoded;charset=utf-8"),)
MOBILE = b"15080920001"
TIME = b"2019-07-23+17%3A00%3A00"
ALL_MISSING = "mobile: missing; taskid: missing; status: missing; receivetime: missing"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request, its answer, and the row it leaves.

    No two accepted cases leave the same row, so one server can run the whole table.
    """

    name: str  # a sentence fragment, unique; also the case's task id where the task id is not the point
    path: str = ""  # after the secret; may end in a slash or a bare "?"
    method: str = "POST"
    body: bytes = b""
    query: bytes = b""  # without the "?"
    headers: Headers = FORM
    chunked: bool = False  # the body goes out chunked, in several chunks, and without Content-Length
    # A whole request, b"{target}" standing for /push/SECRET and b"{secret}" for the secret; the other request fields
    # are then ignored. Sent in one go, then the sender shuts down its write side. Of several answers the first that is
    # not 1xx is meant.
    raw: bytes | None = None
    http_status: int = 200
    outcome: Literal["accepted", "quarantined"] | None = None  # None: nothing is kept
    error: str = ""  # X-Push-Error, exactly
    receipt: Row | None = None  # fields of the receipt's row, equal on the keys given; None: there is none
    reply: Row | None = None  # the same of the reply's
    flags: tuple[str, ...] = ()  # all that an accepted push is flagged with


def receipt_form(
    *,
    mobile: bytes = MOBILE,
    taskid: bytes = b"{name}",
    status: bytes = b"1",
    receivetime: bytes = TIME,
    more: bytes = b"",  # goes last, with its own leading &
) -> bytes:
    """A receipt's form, each value already encoded; {name} becomes the case's name."""
    return b"mobile=%b&taskid=%b&status=%b&receivetime=%b%b" % (mobile, taskid, status, receivetime, more)


def reply_form(
    *,
    mobile: bytes = MOBILE,
    taskid: bytes = b"{name}",
    content: bytes = b"%E6%94%B6%E5%88%B0",
    receivetime: bytes = TIME,
    more: bytes = b"",  # goes last, with its own leading &
) -> bytes:
    """A reply's form, each value already encoded; {name} becomes the case's name."""
    return b"mobile=%b&taskid=%b&content=%b&receivetime=%b%b" % (mobile, taskid, content, receivetime, more)


def receipt_row(name: str, changes: Mapping[str, object]) -> Row:
    """What the row of `receipt_form()` holds, with `changes`."""
    return _row(name, changes, vendor_status="1", status="delivered", reported_at="2019-07-23T09:00:00Z")


def reply_row(name: str, changes: Mapping[str, object]) -> Row:
    """What the row of `reply_form()` holds, with `changes`."""
    return _row(name, changes, content="收到", replied_at="2019-07-23T09:00:00Z")


def _row(name: str, changes: Mapping[str, object], **fields: object) -> Row:
    return {"mobile": "15080920001", "task_id": name, **fields, "extra": {}, "masked": False, **changes}


class Sent(TypedDict, total=False):
    """How it goes out, of the fields of a case."""

    path: str
    method: str
    query: bytes
    headers: Headers
    chunked: bool
    raw: bytes | None


def receipt(
    name: str,
    body: bytes = receipt_form(),
    expect: Mapping[str, object] | None = None,
    *,
    flags: tuple[str, ...] = (),
    **sent: Unpack[Sent],
) -> Case:
    """An accepted receipt; `expect`: where it differs from that of `receipt_form()`."""
    row = receipt_row(name, expect or {})
    return _named(Case(name=name, body=body, outcome="accepted", receipt=row, flags=flags, **sent))


def reply(
    name: str,
    body: bytes = reply_form(),
    expect: Mapping[str, object] | None = None,
    *,
    flags: tuple[str, ...] = (),
    **sent: Unpack[Sent],
) -> Case:
    """An accepted reply; `expect`: where it differs from that of `reply_form()`."""
    row = reply_row(name, expect or {})
    return _named(Case(name=name, body=body, outcome="accepted", reply=row, flags=flags, **sent))


def quarantined(name: str, body: bytes, error: str, **sent: Unpack[Sent]) -> Case:
    """A push that is kept and acked, but does not parse."""
    return _named(Case(name=name, body=body, outcome="quarantined", error=error, **sent))


def _named(case: Case) -> Case:
    """Put its name in for {name}."""
    body, query, raw = (
        None if part is None else part.replace(b"{name}", case.name.encode())
        for part in (case.body, case.query, case.raw)
    )
    return replace(case, body=body or b"", query=query or b"", raw=raw)


PART = b'Content-Disposition: form-data; name="%(name)b"'  # a line of `parts`


def parts(boundary: bytes, heads: tuple[bytes, ...], *fields: tuple[bytes, bytes]) -> bytes:
    """A multipart body; each part's head says %(name)b, its length %(length)d."""
    made = (
        b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, b"\r\n".join(heads) % {b"name": name, b"length": len(value)}, value)
        for name, value in fields
    )
    return b"".join(made) + b"--%b--\r\n" % boundary
