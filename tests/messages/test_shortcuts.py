"""The short ways of ordinary pushes say the same as the general ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from receiver.core import Kind
from receiver.db.tables import messages, pushes, receipts, replies
from receiver.messages import projection
from tests.harness.factories import READER, make_push
from tests.payloads import CASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.core import Push
    from receiver.runtime import Runtime

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


# --- Storing ------------------------------------------------------------------------------------------


def batch() -> list[Push]:
    """Every kind of push that a batch can hold, with copies and meetings."""
    made = [
        make_push(),
        make_push(status="0", second=9),
        make_push(content="收到 \U0001f600"),
        make_push(content="a\0b", second=3),
        make_push(content="a\0b", second=3, task_id=None),
        make_push(mobile="15080921091", status="DELIVRD"),
        make_push(body=b"\xff\x00 nonsense \\"),
        make_push(mobile="1508092****"),
        make_push(body=b"mobile=15080921093&taskid=9&status=1&receivetime=2019-07-23+17:00:00&other=x"),
    ]
    return [*made, *(replace(push, id=make_push().id) for push in made)]


def rows_by(runtime: Runtime, save: Callable[[sa.Connection, list[Push]], None], given_pushes: list[Push]) -> Any:
    for push in (given_pushes, given_pushes[:9]):  # the second time as after a commit whose outcome was unknown
        runtime.database.write(lambda connection, push=push: save(connection, push))  # type: ignore[misc]

    def take(connection: sa.Connection) -> list[list[str]]:
        found = []
        numbers = dict(connection.execute(sa.select(messages.c.id, messages.c.mobile + messages.c.task_id)).all())
        for table in (pushes, messages, receipts, replies):
            columns = [column for column in table.c if column.name != "id" or table is pushes]
            rows = [dict(row) for row in connection.execute(sa.select(*columns)).mappings()]
            for row in rows:
                row["message_id"] = numbers.get(row.get("message_id"))
            found.append(sorted(map(repr, rows)))
            connection.execute(sa.delete(table))
        return found

    return runtime.database.write(take)


def test_batches_are_stored_alike(runtime: Runtime) -> None:
    given_pushes = batch()
    short = rows_by(runtime, projection.save_pushes, given_pushes)
    assert short == rows_by(runtime, projection.save_general, given_pushes)
    assert all(short)


def test_single_pushes_are_stored_alike(runtime: Runtime) -> None:
    def one_by_one(save: Callable[[sa.Connection, list[Push]], None]) -> Callable[[sa.Connection, list[Push]], None]:
        def work(connection: sa.Connection, given_pushes: list[Push]) -> None:
            for push in given_pushes:
                save(connection, [push])

        return work

    given_pushes = batch()
    short = rows_by(runtime, one_by_one(projection.save_pushes), given_pushes)
    assert short == rows_by(runtime, one_by_one(projection.save_general), given_pushes)
