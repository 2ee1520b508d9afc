"""The short way of reading an ordinary push says the same as the general one."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.core import Kind
from tests.harness.factories import READER
from tests.payloads import CASES

ENDPOINTS = (None, Kind.RECEIPT, Kind.REPLY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_payloads_are_read_alike(case: Any) -> None:
    content_type = dict(case.headers).get("Content-Type")
    for endpoint in ENDPOINTS:
        given = {"body": case.body, "query": case.query, "endpoint": endpoint, "content_type": content_type}
        assert READER.read(**given) == READER.read(**given, shortcut=False)


def pieces(*likely: str) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(likely), st.text("0123456789:- %+aZ\u0661\n", max_size=24))


@given(
    name=st.sampled_from(["taskid", "taskId", "taskID", "Taskid"]),
    mobile=pieces("15080921090", "+8615080921090", "1508092****", "150809210901"),
    task=pieces("3313746", "a_b-C", "x" * 64, "x" * 65),
    status=pieces("1", "0", "", "DELIVRD"),
    moment=pieces(
        "2019-07-23+17%3A00%3A00",
        "2019-02-30 17:00:00",
        "2019-07-23%2024:00:00",
        "0000-01-01+00:00:00",
        "9999-12-31+23:59:59",
        "0001-01-01+00:00:00",
        "2019-07-23T17:00:00",
    ),
    endpoint=st.sampled_from(ENDPOINTS),
    raw=st.booleans(),
)
def test_forms_near_the_ordinary_one_are_read_alike(
    name: str, mobile: str, task: str, status: str, moment: str, endpoint: Kind | None, raw: bool
) -> None:
    values = (mobile, task, status, moment) if raw else (mobile, task, status, quote(moment, safe="+%:"))
    body = f"mobile={values[0]}&{name}={values[1]}&status={values[2]}&receivetime={values[3]}".encode()
    short = READER.read(body=body, query=b"", endpoint=endpoint)
    assert short == READER.read(body=body, query=b"", endpoint=endpoint, shortcut=False)


def test_ordinary_receipts_take_the_short_way() -> None:
    body = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"
    assert READER._read_plain(body, None, None) is not None
