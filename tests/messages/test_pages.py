"""Deep pages of every list under every filter, while rows arrive, held against a plain model in Python.

The model knows the rows as they are read without any filter, and picks and orders them by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import MessageStatus
from receiver.db.tables import messages, metadata
from receiver.messages import queries
from receiver.messages.queries import Filter, Page
from receiver.messages.recording import record_sent
from receiver.web.lists.pages import page_may_lag
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.running import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flask import Flask

    from receiver.runtime import Runtime

NOW = NOON + timedelta(hours=80)  # so that some wait, some are late, and some will never hear
MOBILES = ("15080921090", "15080921091", "1508092****", "12345")
TASKS = ("1", "2", "3")
ACCOUNTS = ("default", "other")
HOURS = st.integers(-10, 85)


@dataclass(frozen=True)
class Step:
    """Something that arrives."""

    kind: str
    account: str
    task_id: str
    mobile: str
    word: str
    hours: int


STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["receipt", "reply", "send", "refused", "unreadable"]),
        account=st.sampled_from(ACCOUNTS),
        task_id=st.sampled_from(TASKS),
        mobile=st.sampled_from(MOBILES),
        word=st.sampled_from(["1", "0", "odd"]),
        hours=HOURS,
    ),
    min_size=1,
    max_size=14,
)
CONTENTS = {"1": "TD", "0": "我要退订吗", "odd": "收到, 100%"}
TIMES = st.none() | HOURS.map(lambda hours: NOON + timedelta(hours=hours))
SOME_ACCOUNTS = st.none() | st.just(("default",)) | st.just(("other", "default"))
FLAG = st.none() | st.booleans()


def filters(**fields: Any) -> st.SearchStrategy[Filter]:
    return st.builds(Filter, accounts=SOME_ACCOUNTS, **fields)


SIGHTING = {
    "mobile": st.none() | st.sampled_from(MOBILES),
    "task_id": st.none() | st.sampled_from(TASKS),
    "matched": FLAG,
    "received_from": TIMES,
    "received_to": TIMES,
}
FILTERS: Mapping[str, st.SearchStrategy[Filter]] = {
    "messages": filters(
        mobile=SIGHTING["mobile"],
        task_id=SIGHTING["task_id"],
        status=st.none() | st.sampled_from([status.value for status in MessageStatus]),
        late=FLAG,
        template_id=st.none() | st.sampled_from(["540", "none"]),
        reference=st.none() | st.sampled_from(["r1", "none"]),
        sent_from=TIMES,
        sent_to=TIMES,
        matched=FLAG,
        conflicting=FLAG,
    ),
    "receipts": filters(**SIGHTING, status=st.none() | st.sampled_from(["delivered", "failed", "unknown"])),
    "replies": filters(
        **SIGHTING,
        q=st.none() | st.sampled_from(["退订", "d", "%", "nothing of it"]),
        opt_out=FLAG,
        opt_out_review=FLAG,
    ),
    "pushes": filters(
        outcome=st.none() | st.sampled_from(["accepted", "quarantined"]), received_from=TIMES, received_to=TIMES
    ),
}


def arrive(runtime: Runtime, steps: Sequence[Step]) -> None:
    for step in steps:
        common: dict[str, Any] = {"account": step.account, "task_id": step.task_id, "mobile": step.mobile}
        sent_at = NOON + timedelta(hours=step.hours)
        if step.kind in ("send", "refused"):
            if "*" in step.mobile:
                continue
            taken = step.kind == "send"
            send = make_send(
                **common | {"task_id": step.task_id if taken else None},
                template_id={"1": "540", "0": "541"}.get(step.word),
                reference="r1" if step.word == "1" or not taken else None,
                sent_at=sent_at,
                error_message=None if taken else "余额不足",
            )
            runtime.database.write(lambda c, send=send: record_sent(c, [send], recorded_at=NOW))  # type: ignore[misc]
            continue
        second = step.hours * 3600
        if step.kind == "unreadable":
            push = make_push(account=step.account, body=b"mobile=bad")
        elif step.kind == "reply":
            push = make_push(**common, status=None, content=CONTENTS[step.word], second=second)
        else:
            push = make_push(**common, status=step.word, second=second)
        received_at = sent_at + timedelta(seconds=1)
        came = _received(push, received_at)
        save_pushes(runtime.database, [came])


def _received(push: Any, at: datetime) -> Any:
    """The push as if it had come at that time, its id included, whose first bits are the time."""
    milliseconds = int(at.timestamp() * 1000)
    rest = push.id.int & ((1 << 80) - 1)
    return replace(push, id=UUID(int=milliseconds << 80 | rest), received_at=at)


LISTS: Mapping[str, Callable[..., Sequence[Any]]] = {
    "messages": queries.list_messages,
    "receipts": lambda connection, page, _clock: queries.list_receipts(connection, page),
    "replies": lambda connection, page, _clock: queries.list_replies(connection, page),
    "pushes": lambda connection, page, _clock: queries.list_pushes(connection, page),
}
CLOCK = queries.Clock(now=NOW, late_after=timedelta(seconds=60), no_receipt_after=timedelta(hours=72))


def fits(runtime: Runtime, name: str, row: Any, wanted: Filter) -> bool:
    """Say whether a row is one that was asked for."""
    if wanted.accounts is not None and row.account not in wanted.accounts:
        return False
    for field in ("mobile", "task_id", "status", "late", "template_id", "reference", "conflicting", "opt_out",
                  "opt_out_review", "outcome"):  # fmt: skip
        asked = getattr(wanted, field)
        if asked is None:
            continue
        if getattr(row, field) != asked:
            return False
    matched = row.matched if name == "messages" else _matched(runtime, getattr(row, "message_id", None))
    if wanted.matched is not None and matched != wanted.matched:
        return False
    if wanted.q is not None and wanted.q.lower() not in row.content.lower():
        return False
    if name == "messages":
        moment = (row.sent_at or row.recorded_at) if row.matched else None
        since, until = wanted.sent_from, wanted.sent_to
    else:
        moment, since, until = row.received_at, wanted.received_from, wanted.received_to
    if since is None and until is None:
        return True
    return moment is not None and (since is None or since <= moment) and (until is None or moment < until)


def _matched(runtime: Runtime, message_id: int | None) -> bool:
    query = sa.select(messages.c.recorded_at).where(messages.c.id == message_id)
    return runtime.ask(lambda connection: connection.scalar(query)) is not None


@pytest.mark.timeout(180)
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), first=STEPS, limit=st.integers(1, 3))
@pytest.mark.parametrize("name", sorted(LISTS))
def test_pages_are_those_of_the_model_while_rows_arrive(
    runtime: Runtime, name: str, data: st.DataObject, first: list[Step], limit: int
) -> None:
    tables = [metadata.tables[table] for table in ("receipts", "replies", "messages", "pushes")]
    runtime.database.write(lambda connection: [connection.execute(sa.delete(table)) for table in tables])
    arrive(runtime, first)

    def page(**given: Any) -> Sequence[Any]:
        return runtime.ask(lambda connection: LISTS[name](connection, Page(**given), CLOCK))

    there = page(limit=1000)
    assert [row.id for row in there] == sorted((row.id for row in there), reverse=True)
    wanted = data.draw(FILTERS[name])
    expected = [row.id for row in there if fits(runtime, name, row, wanted)]
    assert [row.id for row in page(limit=1000, filter=wanted)] == expected
    # Newest first by id, so that what arrives is above every page but the first. What changes a row that is still to
    # come may take it into the filter or out of it, so here only rows of a task of their own arrive.
    seen: list[Any] = []
    before = None
    while rows := page(limit=limit, before=before, filter=wanted):
        seen += [row.id for row in rows]
        before = rows[-1].id
        new: dict[str, Any] = {"task_id": f"new {len(seen)}", "hours": 90 + len(seen)}
        arrive(runtime, [replace(step, **new) for step in first[:3] if "*" not in step.mobile])
    assert seen == expected


def test_later_page_comes_from_a_replica_once_clocks_cannot_hide_what_the_first_showed(
    app: Flask, runtime: Runtime
) -> None:
    lag, now = runtime.settings.replica_max_lag, runtime.now()
    with app.app_context():
        assert page_may_lag((), None)
        assert not page_may_lag((), now - lag - timedelta(minutes=4))  # the clocks of two nodes may be five apart
        assert page_may_lag((), now - lag - timedelta(minutes=6))
        assert not page_may_lag(("task_id",), None)
