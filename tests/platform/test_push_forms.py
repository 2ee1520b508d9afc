"""A push is read as what it was sent as, at its arrival and whenever it is read again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from receiver.app import create_app
from receiver.core import Receipt, Reply
from receiver.intake.spool_records import frame, read_file
from receiver.messages import queries
from tests.conftest import SECRET
from tests.harness.factories import READER, make_push

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime

_GBK = "application/x-www-form-urlencoded;charset=GBK"
_BODY = (
    b"mobile=15080921090&taskid=1&receivetime=2019-07-23+17:00:00&content=%D0%BB%D0%BB"  # also UTF-8, of other letters
)
_TYPES = (None, _GBK, "text/plain;charset=utf-16", "application/json", "multipart/form-data; boundary=x")


def test_declared_charset_counts_whenever_a_push_is_read(runtime: Runtime, tmp_path: Path) -> None:
    client = create_app(runtime).test_client()
    answer = client.post(f"/push/{SECRET}", data=_BODY, content_type=_GBK)
    assert answer.headers["X-Push-Outcome"] == "accepted"
    (row,) = runtime.ask(lambda connection: queries.list_pushes(connection, queries.Page(limit=1)))
    file = tmp_path / "one.spool"
    file.write_bytes(frame(replace(make_push(body=_BODY), content_type=_GBK), None))
    (spooled,) = read_file(file)
    for push in (runtime.admission.read_again(row.as_push()), runtime.admission.read_spooled(spooled)):  # type: ignore[arg-type]
        assert isinstance(push.reading, Reply)
        assert (push.reading.content, push.flags) == ("谢谢", ())


@given(
    body=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=60).map(lambda some: b"--x\r\nContent-Disposition: form-data; name=mobile\r\n\r\n" + some),
        st.binary(max_size=60).map(lambda some: b'{"mobile":"' + some + b'"}'),
    ),
    query=st.binary(max_size=20),
    content_type=st.sampled_from(_TYPES),
)
def test_no_bytes_make_reading_fail_and_what_is_read_can_be_stored(
    body: bytes, query: bytes, content_type: str | None
) -> None:
    reading, _ = READER.read(body=body, query=query, endpoint=None, content_type=content_type)
    if isinstance(reading, Receipt | Reply):
        repr(reading).encode()  # no half of a character


@given(text=st.text(st.characters(codec="gb18030", exclude_characters="\0"), min_size=1, max_size=20))
def test_declared_gb18030_is_read_as_it_was_written(text: str) -> None:
    body = b"mobile=15080921090&taskid=1&receivetime=2019-07-23+17:00:00&content=" + b"".join(
        b"%%%02X" % byte for byte in text.encode("gb18030")
    )
    reading, flags = READER.read(
        body=body, query=b"", endpoint=None, content_type="application/x-www-form-urlencoded; charset=gb18030"
    )
    assert isinstance(reading, Reply)
    assert (reading.content, flags) == (text, ())
