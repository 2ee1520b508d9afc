"""The audit's chain: entries stay as they are, and whatever is done to them all the same is found and named."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from receiver.audit import Checkpoint, Checkpoints, thinned, verify_audit
from receiver.audit import log as store
from receiver.db.engine import RowRejected
from receiver.db.tables import audit, audit_chain
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.runtime import Runtime

T0 = datetime(2026, 11, 26, 9, tzinfo=UTC)


def note(runtime: Runtime, entries: int, *, action: str = "look_up") -> None:
    for number in range(entries):
        runtime.audit("user:li.wei", action, mobile="15080921090", page=number)


def fault(runtime: Runtime) -> str | None:
    anchors, faults = runtime.checkpoints.read()
    assert faults == []
    finding = verify_audit(runtime.database, anchors)
    assert finding.ok is (not finding.details)
    return finding.details[0] if finding.details else None


def rows(runtime: Runtime) -> list[Any]:
    return runtime.ask(lambda c: list[Any](c.execute(sa.select(audit).order_by(audit.c.position))))


def tamper(runtime: Runtime, *statements: str | sa.Executable) -> None:
    """Do as somebody would who owns the database: take the triggers away first, and put them back."""

    def work(connection: sa.Connection) -> None:
        dialect = connection.dialect.name
        own: list[Any] = [sa.text(one) if isinstance(one, str) else one for one in statements]
        for statement in store.drop_statements(dialect):
            connection.exec_driver_sql(statement)
        for statement in own:
            connection.execute(statement)
        for statement in store.create_statements(dialect):
            connection.exec_driver_sql(statement)

    runtime.database.write(work)


def rewrite(runtime: Runtime, entries: list[dict[str, Any]]) -> None:
    """Make the whole chain anew from these entries, so that it holds by itself."""
    new: list[dict[str, Any]] = []
    before = store.BEGINNING
    for position, entry in enumerate(entries, 1):
        before = store.hash_of(before, entry, position)
        number = (entry["detail"] or {}).get("mobile_hmac")
        new.append(entry | {"position": position, "hash": before, "mobile_hmac": number})
    tamper(
        runtime,
        sa.delete(audit),
        sa.insert(audit).values(new),
        sa.update(audit_chain).values(last_position=len(new), last_hash=new[-1]["hash"]),
    )


def as_entries(runtime: Runtime) -> list[dict[str, Any]]:
    return [{name: getattr(row, name) for name in ("id", "at", "actor", "action", "detail")} for row in rows(runtime)]


def test_what_was_written_holds_and_is_noted_outside_the_database(runtime: Runtime) -> None:
    note(runtime, 3)
    found = rows(runtime)
    assert [row.position for row in found] == [1, 2, 3]
    assert len({row.hash for row in found}) == 3
    anchors, _ = runtime.checkpoints.read()
    assert [(anchor.position, anchor.hash) for anchor in anchors] == [(row.position, bytes(row.hash)) for row in found]
    assert fault(runtime) is None


_FOREIGN = "INSERT INTO audit (at, actor, action) VALUES ('2026-01-01 00:00:00.000000', 'cli', 'nothing')"
TAMPERING = {
    "UPDATE audit SET actor = 'user:nobody' WHERE position = 2": "entry 2 (2026",
    "UPDATE audit SET action = 'login' WHERE position = 2": "entry 2 (",
    """UPDATE audit SET detail = '{"page": 7}' WHERE position = 2""": "entry 2 (",
    "UPDATE audit SET at = '2020-01-01 00:00:00' WHERE position = 2": "entry 2 (2020-01-01",
    "UPDATE audit SET id = 99 WHERE position = 2": "entry 2 (",
    "UPDATE audit SET mobile_hmac = NULL WHERE position = 2": "entry 2 (",
    "UPDATE audit SET hash = (SELECT hash FROM audit WHERE position = 1) WHERE position = 2": "entry 2 (",
    "UPDATE audit SET position = NULL, hash = NULL WHERE position = 2": "entry 2 is missing",
    "DELETE FROM audit WHERE position = 2": "entry 2 is missing",
    "DELETE FROM audit WHERE position = 1": "entry 1 is missing",
    "DELETE FROM audit WHERE position > 3": "cut off behind entry 3: this node noted that there are 4",
    "DELETE FROM audit": "cut off behind entry 0",
    _FOREIGN: "1 entries without a position are not of the chain",
    "DELETE FROM audit_chain": "the chain's end (table audit_chain) is missing",
    "UPDATE audit_chain SET last_position = 3": "it goes on to entry 4, and its end says 3",
    "UPDATE audit_chain SET horizon_position = 2": "it begins behind entry 2, and no entry records",
}


def test_each_kind_of_tampering_is_found_and_the_first_wrong_entry_named(runtime: Runtime) -> None:
    note(runtime, 4)
    before = [dict(row._mapping) for row in rows(runtime)]
    (end,) = runtime.ask(lambda c: [dict(row) for row in c.execute(sa.select(audit_chain)).mappings()])
    for statement, said in TAMPERING.items():
        tamper(runtime, statement)
        assert said in str(fault(runtime)), statement
        tamper(
            runtime,
            *map(sa.delete, (audit, audit_chain)),
            sa.insert(audit).values(before),
            sa.insert(audit_chain).values(end),
        )
        assert fault(runtime) is None


def test_an_entry_that_was_rewritten_with_its_hash_does_not_fit_the_next_one(runtime: Runtime) -> None:
    note(runtime, 4)
    first, *_ = rows(runtime)
    rewritten = store.hash_of(bytes(first.hash), as_entries(runtime)[1] | {"actor": "user:nobody"}, 2)
    second = sa.update(audit).where(audit.c.position == 2)
    tamper(runtime, second.values(actor="user:nobody", hash=rewritten))
    assert "entry 3 (" in str(verify_audit(runtime.database).details)


def test_a_chain_that_was_rewritten_as_a_whole_is_not_the_one_that_was_noted(runtime: Runtime) -> None:
    note(runtime, 4)
    entries = as_entries(runtime)
    entries[1] |= {"actor": "user:nobody"}
    rewrite(runtime, entries)
    assert verify_audit(runtime.database).ok  # by itself it holds
    assert "entry 2 is not the one that this node noted at" in str(fault(runtime))


def test_a_chain_that_was_cut_off_and_ended_anew_is_shorter_than_what_was_noted(runtime: Runtime) -> None:
    note(runtime, 4)
    rewrite(runtime, as_entries(runtime)[:3])
    assert verify_audit(runtime.database).ok
    assert fault(runtime) == "cut off behind entry 3: this node noted that there are 4"


def test_a_chain_that_was_cut_off_where_its_end_still_stands_is_found_without_anchors(runtime: Runtime) -> None:
    note(runtime, 4)
    tamper(runtime, "DELETE FROM audit WHERE position > 3")
    finding = verify_audit(runtime.database)
    assert finding.details == ("cut off behind entry 3: its end says that there are 4",)


def test_the_database_refuses_to_change_entries(runtime: Runtime) -> None:
    note(runtime, 1)
    runtime.database.write(lambda connection: connection.exec_driver_sql(_FOREIGN))
    before = rows(runtime)
    statements = [
        "UPDATE audit SET actor = 'user:nobody' WHERE position = 1",
        "UPDATE audit SET hash = NULL, position = NULL WHERE position = 1",
        "UPDATE audit SET actor = 'user:nobody', position = 9 WHERE position IS NULL",
        "DELETE FROM audit WHERE position = 1",
        "DELETE FROM audit WHERE position IS NULL",
        "DELETE FROM audit_chain",
    ]
    if runtime.database.postgresql:
        statements += ["TRUNCATE audit", "TRUNCATE audit_chain"]
    for statement in statements:
        with pytest.raises(RowRejected), runtime.database.reading() as connection:
            connection.execute(sa.text(statement))
    assert rows(runtime) == before


def test_writers_at_once_make_one_chain(runtime: Runtime) -> None:
    threads = [threading.Thread(target=note, args=(runtime, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [row.position for row in rows(runtime)] == list(range(1, 21))
    assert fault(runtime) is None


def test_what_is_noted_with_a_change_is_kept_with_it_or_not_at_all(runtime: Runtime) -> None:
    def fail(connection: sa.Connection) -> None:
        store.write_audit(connection, at=T0, actor="cli", action="inside", detail={})
        raise RowRejected("no")

    with pytest.raises(RowRejected):
        runtime.audited(fail, "cli", "key.create")
    assert rows(runtime) == []
    assert runtime.audited(lambda _: 7, "cli", "key.create") == 7
    assert [row.action for row in rows(runtime)] == ["key.create"]


# --- Pruning ------------------------------------------------------------------------------------------


def fill_days(runtime: Runtime, days: int) -> None:
    def work(connection: sa.Connection) -> None:
        for day in range(days):
            store.write_audit(connection, at=T0 + timedelta(days=day), actor="cli", action="test", detail={"day": day})

    runtime.database.write(work)


def prune(runtime: Runtime, before: datetime, limit: int = 10_000) -> int:
    return runtime.database.write(
        lambda connection: store.prune_audit(connection, before, now=T0 + timedelta(days=99), limit=limit)
    )


def test_pruning_moves_the_beginning_and_says_so_in_the_chain(runtime: Runtime) -> None:
    fill_days(runtime, 10)
    last = rows(runtime)[3]
    assert prune(runtime, T0 + timedelta(days=4)) == 4
    kept = rows(runtime)
    assert [row.position for row in kept] == [5, 6, 7, 8, 9, 10, 11]
    assert (kept[-1].actor, kept[-1].action) == ("cli", "audit.prune")
    assert kept[-1].detail["last_position"] == 4
    assert kept[-1].detail["last_hash"] == bytes(last.hash).hex()
    assert fault(runtime) is None
    assert prune(runtime, T0 + timedelta(days=4)) == 0


def test_pruning_goes_in_batches_and_may_take_all(runtime: Runtime) -> None:
    fill_days(runtime, 10)
    until = T0 + timedelta(days=50)
    counts = [prune(runtime, until, limit=4) for _ in range(4)]
    assert counts[:3] == [4, 4, 2]
    assert fault(runtime) is None
    note(runtime, 1)
    assert fault(runtime) is None


def test_a_beginning_that_was_moved_past_entries_is_found(runtime: Runtime) -> None:
    fill_days(runtime, 6)
    prune(runtime, T0 + timedelta(days=2))
    third = rows(runtime)[0]
    tamper(
        runtime,
        "DELETE FROM audit WHERE position = 3",
        sa.update(audit_chain).values(horizon_position=3, horizon_hash=third.hash),
    )
    assert "it begins behind entry 3, and no entry records" in str(fault(runtime))


# --- What is noted outside ----------------------------------------------------------------------------


def anchors_of(positions: range, every: timedelta) -> Iterator[Checkpoint]:
    return (Checkpoint(position=n, at=T0 + n * every, hash=n.to_bytes(32)) for n in positions)


def test_anchors_are_thinned_out_to_one_an_hour_beyond_the_newest_thousand(tmp_path: Path) -> None:
    places = Checkpoints(tmp_path)
    every = list(anchors_of(range(1, 2001), timedelta(minutes=10)))
    places.path.write_text("".join(anchor.line for anchor in every[:-1]))
    places.add(every[-1])
    kept, faults = places.read()
    assert faults == []
    assert kept[-1000:] == every[-1000:]
    assert len(kept) == 1000 + 167
    assert kept == thinned(kept)
    places.add(Checkpoint(position=2001, at=T0, hash=bytes(32)))
    assert len(places.read()[0]) == len(kept) + 1


def test_a_line_that_a_stopped_machine_has_left_is_passed_over_and_any_other_is_named(tmp_path: Path) -> None:
    places = Checkpoints(tmp_path)
    first, second = anchors_of(range(1, 3), timedelta(minutes=1))
    places.add(first)
    with places.path.open("a") as file:
        file.write(second.line[:20])
    assert places.read() == ([first], [])
    places.add(second)
    assert places.read() == ([first, second], [])
    places.path.write_text("nonsense\n" + second.line)
    anchors, faults = places.read()
    assert anchors == [second]
    assert faults == [f"{places.path}: line 1 cannot be read"]


def test_an_entry_is_kept_where_its_place_cannot_be_noted(make_runtime: Callable[..., Runtime], tmp_path: Path) -> None:
    runtime = make_runtime()
    runtime.checkpoints.path.mkdir()
    note(runtime, 1)
    assert [row.position for row in rows(runtime)] == [1]


# --- The command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_verify_says_that_the_audit_was_tampered_with_and_exits_with_1(make_runtime: Callable[..., Runtime]) -> None:
    runtime = make_runtime()
    note(runtime, 3)
    process = ServeProcess(runtime.settings.data_dir, runtime.settings.database_url)
    assert process.run("keys", "create", "a", "--scope", "read").returncode == 0  # which notes its place too
    rewrite(runtime, as_entries(runtime)[:2])
    bad = process.run("verify")
    assert bad.returncode == 1
    assert "cut off behind entry 2: this node noted that there are 4" in bad.stdout
