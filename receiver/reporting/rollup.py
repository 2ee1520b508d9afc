"""Counts of the delivery report, maintained by triggers on `messages`, in the same transaction, on both databases.

`rebuild` counts everything again, `differences` verifies the counts. On PostgreSQL the triggers only append changes, so
that writers never wait for each other, and `fold` adds them up now and then; readers add both. SQLite has one writer,
whose triggers add up at once.

A message counts in the hour of its sending, else of its recording; an unmatched one in that of its report. Hours and
days are those of one zone, as seconds east of UTC: databases differ in the zones that they know.

The books are closed before a date that pruning moves on: changes to older messages, such as deletions, change no count.
The counts of an erased number's messages are stored apart.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from operator import sub
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.core import DeliveryStatus, MessageStatus
from receiver.db.encryption import cipher_of, mobile_token
from receiver.db.engine import lift_statement_timeout
from receiver.db.message_status import BARE, as_text, has_status, is_open, is_reported, waits
from receiver.db.sql import epoch_seconds
from receiver.db.tables import forgotten_hours, forgotten_latencies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HOUR_SECONDS, _DAY_SECONDS = 3600, 86400
_SECONDS_MAX = 2_000_000_000  # of a latency; times may lie centuries apart

_MATCHED = "recorded_at IS NOT NULL"
_REPORTED = {
    name: f"{_MATCHED} AND {as_text(is_reported(status, BARE))}"
    for name, status in (
        ("delivered", DeliveryStatus.DELIVERED),
        ("failed", DeliveryStatus.FAILED),
        ("unknown", DeliveryStatus.UNKNOWN),
    )
}
# Column of delivery_hours: the condition of what it counts.
COUNTS = {
    "sent": f"{_MATCHED} AND send_state IS NULL",
    "refused": as_text(has_status(MessageStatus.REFUSED, None, BARE)),
    "open": as_text(is_open(BARE)),
    **_REPORTED,
    "waiting": f"{_MATCHED} AND {as_text(waits(BARE))}",
    "unmatched": "recorded_at IS NULL",
    "verified": f"{_MATCHED} AND verified_at IS NOT NULL",
}
_COLUMNS = ("account", "template_id", "status", "reported_at", "recorded_at", "sent_at", "send_state", "verified_at")

# --- Expressions --------------------------------------------------------------------------------------------------

AGE_FROM = "coalesce(sent_at, recorded_at)"
_COUNTS_FROM = f"CASE WHEN recorded_at IS NULL THEN reported_at ELSE {AGE_FROM} END"
_FOLD_LOCK = 0x726376725F666F  # one process at a time


def latency_seconds(dialect: str) -> str:
    """Write the whole seconds from sending to report, never below 0; null where the sending's time is not known."""
    if dialect == "postgresql":
        passed = "floor(extract(epoch FROM reported_at - sent_at))"
        return f"CASE WHEN sent_at IS NOT NULL THEN greatest(0, least({_SECONDS_MAX}, {passed}))::integer END"
    # A report's time is in whole seconds: where the sending has a fraction, a second less has passed.
    fraction = "(CAST(strftime('%f', sent_at) AS REAL) > CAST(strftime('%S', sent_at) AS REAL))"
    passed = f"{epoch_seconds(dialect, 'reported_at')} - {epoch_seconds(dialect, 'sent_at')} - {fraction}"
    return f"CASE WHEN sent_at IS NOT NULL THEN max(0, min({_SECONDS_MAX}, {passed})) END"


def _counted(dialect: str, *sources: tuple[int, str]) -> str:
    """Return messages as countable rows. `sources`: (1 or -1, a table or query with a message's columns)."""
    counts_from = epoch_seconds(dialect, _COUNTS_FROM)
    return " UNION ALL ".join(
        f"SELECT {n} AS n, account, coalesce(template_id, '') AS template_id, status, recorded_at, send_state,"  # noqa: S608
        f" verified_at, {counts_from} + zone.offset_seconds AS moment,"
        f" {latency_seconds(dialect)} AS seconds"
        f" FROM {source} AS m CROSS JOIN delivery_zone AS zone"
        f" WHERE ({_MATCHED} OR reported_at IS NOT NULL) AND {counts_from} >= zone.closed_before"
        for n, source in sources
    )


def _hours(counted: str) -> str:
    sums = ", ".join(f"coalesce(sum(n) FILTER (WHERE {what}), 0) AS {name}" for name, what in COUNTS.items())
    any_left = " OR ".join(f"{name} <> 0" for name in COUNTS)
    return (
        f"SELECT * FROM (SELECT CAST(moment / {_HOUR_SECONDS} AS INTEGER) AS hour, account, template_id, {sums}"  # noqa: S608
        f" FROM ({counted}) AS c GROUP BY 1, 2, 3) AS s WHERE {any_left}"
    )


def _latencies(counted: str) -> str:
    return (
        f"SELECT * FROM (SELECT CAST(moment / {_DAY_SECONDS} AS INTEGER) AS day, account, template_id, seconds,"  # noqa: S608
        f" sum(n) AS messages FROM ({counted}) AS c"
        f" WHERE {COUNTS['delivered']} AND seconds IS NOT NULL GROUP BY 1, 2, 3, 4) AS s WHERE messages <> 0"
    )


_HOUR_COLUMNS = f"hour, account, template_id, {', '.join(COUNTS)}"
_LATENCY_COLUMNS = "day, account, template_id, seconds, messages"


def _append(counted: str) -> Iterator[str]:
    """Return the two statements that append the counts, for `fold` to add up."""
    yield f"INSERT INTO delivery_hour_changes ({_HOUR_COLUMNS}) {_hours(counted)}"
    yield f"INSERT INTO delivery_latency_changes ({_LATENCY_COLUMNS}) {_latencies(counted)}"


def _add(hours: str, latencies: str, *, to: str = "delivery") -> Iterator[str]:
    """Return the two statements that add counts up."""
    added = ", ".join(f"{name} = {to}_hours.{name} + excluded.{name}" for name in COUNTS)
    yield (
        f"INSERT INTO {to}_hours ({_HOUR_COLUMNS}) {hours}"
        f" ON CONFLICT (hour, account, template_id) DO UPDATE SET {added}"
    )
    yield (
        f"INSERT INTO {to}_latencies ({_LATENCY_COLUMNS}) {latencies}"
        " ON CONFLICT (day, account, template_id, seconds)"
        f" DO UPDATE SET messages = {to}_latencies.messages + excluded.messages"
    )


# --- The triggers -----------------------------------------------------------------------------------------------


def create_statements(dialect: str) -> Iterator[str]:
    """Return the statements that make the triggers."""
    if dialect == "postgresql":
        yield from _postgresql_functions()
        yield from _postgresql_triggers()
    else:
        yield from _sqlite_triggers()


def drop_statements(dialect: str) -> Iterator[str]:
    """Return the statements that remove them where they are; functions stay, and are made over."""
    for event in ("insert", "update", "delete"):
        if dialect == "postgresql":
            yield f"DROP TRIGGER IF EXISTS delivery_rollup_{event} ON messages"
        else:
            yield f"DROP TRIGGER IF EXISTS delivery_rollup_{event}"
            yield f"DROP TRIGGER IF EXISTS delivery_rollup_{event}_latency"


def _postgresql_functions() -> Iterator[str]:
    # Not joined by id: nothing is known of these rows but their number at the first call, and they may be many.
    columns = ", ".join(_COLUMNS)
    differing = f"(SELECT {columns} FROM is_now EXCEPT ALL SELECT {columns} FROM was) AS differing"  # noqa: S608
    for event, any_of, sources in (
        ("insert", "is_now", ((1, "is_now"),)),
        ("update", differing, ((1, "is_now"), (-1, "was"))),  # a stamp, for one, changes no count
        ("delete", "was", ((-1, "was"),)),
    ):
        body = ";\n".join(_append(_counted("postgresql", *sources)))
        yield (
            f"CREATE OR REPLACE FUNCTION delivery_rollup_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n"
            f"IF EXISTS (SELECT FROM {any_of}) THEN\n{body};\nEND IF;\nRETURN NULL;\nEND $$"
        )


def _postgresql_triggers() -> Iterator[str]:
    """Once a statement, over the rows that it changed: a batch of pushes is one of each."""
    for event, tables in (
        ("insert", "NEW TABLE AS is_now"),
        ("update", "OLD TABLE AS was NEW TABLE AS is_now"),
        ("delete", "OLD TABLE AS was"),
    ):
        yield (
            f"CREATE TRIGGER delivery_rollup_{event} AFTER {event.upper()} ON messages REFERENCING {tables}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION delivery_rollup_{event}()"
        )


def _sqlite_triggers() -> Iterator[str]:
    """Once a row, where anything that counts has changed: written out, which a push feels half as much as one query."""
    differs = " OR ".join(f"old.{name} IS NOT new.{name}" for name in _COLUMNS)
    has_latency = f"{COUNTS['delivered']} AND sent_at IS NOT NULL"
    for event, when, rows in (
        ("insert", "1", {"new": 1}),
        ("update", f"({differs})", {"new": 1, "old": -1}),
        ("delete", "1", {"old": -1}),
    ):
        latency = " OR ".join(f"({_of(row, has_latency)})" for row in rows)
        for suffix, condition, write in (
            ("", when, _sqlite_hour),
            ("_latency", f"{when} AND ({latency})", _sqlite_latency),
        ):
            body = " ".join(f"{write(row, n)};" for row, n in rows.items())
            yield (
                f"CREATE TRIGGER delivery_rollup_{event}{suffix} AFTER {event.upper()} ON messages FOR EACH ROW"
                f" WHEN {condition} BEGIN {body} END"
            )


def _sqlite_hour(row: str, n: int) -> str:
    counts = ", ".join(f"{n} * coalesce({_of(row, what)}, 0)" for what in COUNTS.values())
    key = f"({_sqlite_moment(row)}) / {_HOUR_SECONDS}, {row}.account, coalesce({row}.template_id, '')"
    where = _of(row, f"({_MATCHED} OR reported_at IS NOT NULL)") + _sqlite_open(row)
    return next(_add(f"SELECT {key}, {counts} WHERE {where}", ""))


def _sqlite_latency(row: str, n: int) -> str:
    key = f"({_sqlite_moment(row)}) / {_DAY_SECONDS}, {row}.account, coalesce({row}.template_id, '')"
    seconds = _of(row, latency_seconds("sqlite"))
    where = _of(row, f"{COUNTS['delivered']} AND sent_at IS NOT NULL") + _sqlite_open(row)
    return list(_add("", f"SELECT {key}, {seconds}, {n} WHERE {where}"))[1]


def _sqlite_open(row: str) -> str:
    moment = _of(row, epoch_seconds("sqlite", _COUNTS_FROM))
    return f" AND {moment} >= (SELECT closed_before FROM delivery_zone)"  # noqa: S608


def _sqlite_moment(row: str) -> str:
    zone = "coalesce((SELECT offset_seconds FROM delivery_zone), 0)"
    return f"{_of(row, epoch_seconds('sqlite', _COUNTS_FROM))} + {zone}"


def _of(row: str, expression: str) -> str:
    """Write an expression over a message's columns as one over those of a trigger's row."""
    return re.sub(rf"\b({'|'.join(_COLUMNS)})\b", rf"{row}.\1", expression)


# --- All of it ----------------------------------------------------------------------------------------------------


def rebuild(connection: sa.Connection, *, offset_seconds: int) -> None:
    """Count every message again, in that zone.

    Writers wait for the end of the transaction; pushes are spooled. Counts from before the closing date stay, moved to
    the hours of the new zone; their latencies stay in their days, which overlap those of another zone.
    """
    dialect = connection.dialect.name
    _hold_writers(connection)
    hours_open, days_open = _open_parts(connection)
    connection.exec_driver_sql(f"DELETE FROM delivery_hours WHERE {hours_open}")  # noqa: S608
    connection.exec_driver_sql(f"DELETE FROM delivery_latencies WHERE {days_open}")  # noqa: S608
    moved = offset_seconds // _HOUR_SECONDS - zone_offset_seconds(connection) // _HOUR_SECONDS
    for table in ("delivery_hours", "forgotten_hours") if moved else ():
        # In two steps, so that no row collides with one that has not moved yet.
        for change in (f"{_FAR_BELOW} - hour - {moved}", f"{_FAR_BELOW} - hour"):
            connection.exec_driver_sql(f"UPDATE {table} SET hour = {change}")  # noqa: S608
    connection.execute(sa.text("UPDATE delivery_zone SET offset_seconds = :offset"), {"offset": offset_seconds})
    counted = _counted(dialect, (1, "messages"))
    hours_open, days_open = _open_parts(connection)
    forgotten = (
        f"SELECT {_HOUR_COLUMNS} FROM forgotten_hours WHERE {hours_open}",  # noqa: S608
        f"SELECT {_LATENCY_COLUMNS} FROM forgotten_latencies WHERE {days_open}",  # noqa: S608
    )
    for statement in (*_add(_hours(counted), _latencies(counted)), *_add(*forgotten)):
        connection.exec_driver_sql(statement)


_FAR_BELOW = -100_000_000


def _hold_writers(connection: sa.Connection) -> None:
    """Block writers of messages until the end of the transaction, and add up pending changes."""
    lift_statement_timeout(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE messages IN SHARE ROW EXCLUSIVE MODE")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_FOLD_LOCK)))
        for statement in _fold_statements():
            connection.exec_driver_sql(statement)


def reopen(connection: sa.Connection, since: datetime, *, all_new: bool) -> None:
    """Open the books again from the day on in which rows begin to exist, at `since`; then rebuild them.

    Counts of messages that are gone are stored apart, like an erased number's. What was counted while the books were
    open, and what exists now, may be the same messages: so the greater count holds. Both hold only in the hour in which
    rows begin, and the one before, if nothing was counted later and `all_new` says that no rows were left.
    """
    _hold_writers(connection)
    offset, closed = zone_offset_seconds(connection), closed_before(connection)
    begun = int(since.timestamp()) + offset - _HOUR_SECONDS  # recorded messages were sent before
    opened = begun // _DAY_SECONDS * _DAY_SECONDS - offset
    if opened >= closed:
        return
    counted_before = {"closed": (closed + offset) // _HOUR_SECONDS}
    newest = connection.scalar(sa.text("SELECT max(hour) FROM delivery_hours WHERE hour < :closed"), counted_before)
    apart = all_new and (newest is None or newest <= begun // _HOUR_SECONDS + 1)
    connection.execute(sa.text("UPDATE delivery_zone SET closed_before = :opened"), {"opened": opened})
    counted = _counted(connection.dialect.name, (1, "messages"))
    for name, columns, there, width, both_from in (
        ("hours", _HOUR_COLUMNS, _hours(counted), _HOUR_SECONDS, begun // _HOUR_SECONDS),
        ("latencies", _LATENCY_COLUMNS, _latencies(counted), _DAY_SECONDS, begun // _DAY_SECONDS),
    ):
        span = (opened + offset) // width, -(-(closed + offset) // width)
        _keep_gone(connection, name, columns.split(", "), there, span, both_from if apart else span[1])


def _keep_gone(
    connection: sa.Connection, name: str, columns: Sequence[str], there: str, span: tuple[int, int], both_from: int
) -> None:
    """Store the counts of a span whose messages are gone. From `both_from` on, none of the present ones was counted."""
    keys = len(columns) - (len(COUNTS) if name == "hours" else 1)
    where = f"{columns[0]} >= {span[0]} AND {columns[0]} < {span[1]}"

    def cells(source: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
        query = f"SELECT {', '.join(columns)} FROM {source} WHERE {where}"  # noqa: S608
        return {tuple(row[:keys]): tuple(row[keys:]) for row in connection.exec_driver_sql(query)}

    present, forgotten = cells(f"({there}) AS t"), cells(f"forgotten_{name}")
    rows = []
    for key, counts in cells(f"delivery_{name}").items():
        nothing = (0,) * len(counts)
        less = map(sub, counts, present.get(key, nothing))
        gone = counts if key[0] >= both_from else tuple(map(max, less, forgotten.get(key, nothing)))
        if any(gone):
            rows.append(dict(zip(columns, (*key, *gone), strict=True)))
    table = forgotten_hours if name == "hours" else forgotten_latencies
    connection.exec_driver_sql(f"DELETE FROM forgotten_{name} WHERE {where}")  # noqa: S608
    if rows:
        connection.execute(sa.insert(table), rows)


def close_before(connection: sa.Connection, moment: datetime) -> datetime:
    """Close the books before the last day of their zone that begins by then; never back. Return the closing date."""
    offset = zone_offset_seconds(connection)
    wanted = (int(moment.timestamp()) + offset) // _DAY_SECONDS * _DAY_SECONDS - offset
    connection.execute(
        sa.text("UPDATE delivery_zone SET closed_before = :wanted WHERE closed_before < :wanted"), {"wanted": wanted}
    )
    return datetime.fromtimestamp(closed_before(connection), UTC)


def keep_forgotten(connection: sa.Connection, mobile: str) -> None:
    """Store the counts of a number's messages beyond their deletion, which must follow in the same transaction.

    Raises ValueError for anything but digits.
    """
    if not mobile.isascii() or not mobile.isdigit():
        raise ValueError("not the digits of a number")  # it goes into the statement
    dialect = connection.dialect.name
    cipher = cipher_of(connection.dialect)
    kept = mobile if cipher is None else mobile_token(cipher, mobile)  # letters, digits, - and _
    counted = _counted(dialect, (1, f"(SELECT * FROM messages WHERE mobile = '{kept}')"))  # noqa: S608
    # Once more in the live counts, from which the triggers subtract it, and once in the counts of deleted messages.
    again = _append(counted) if dialect == "postgresql" else _add(_hours(counted), _latencies(counted))
    for statement in (*again, *_add(_hours(counted), _latencies(counted), to="forgotten")):
        connection.exec_driver_sql(statement)


def closed_before(connection: sa.Connection) -> int:
    """Return the closing date of the books, in seconds from 1970."""
    return int(connection.scalar(sa.text("SELECT closed_before FROM delivery_zone")) or 0)


def _open_parts(connection: sa.Connection) -> tuple[str, str]:
    """Return the conditions of the hours and of the days after the closing date."""
    offset, closed = zone_offset_seconds(connection), closed_before(connection)
    # Whole numbers of ours. An hour has to fit into an integer beside its seconds: hence not multiplied.
    first_hour, first_day = (-(-(closed + offset) // width) for width in (_HOUR_SECONDS, _DAY_SECONDS))
    return f"hour >= {first_hour}", f"day >= {first_day}"


def fold(connection: sa.Connection) -> None:
    """Add up what the triggers have appended; no effect while another process does."""
    if connection.dialect.name != "postgresql":
        return
    if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_FOLD_LOCK))):
        return
    for statement in _fold_statements():
        connection.exec_driver_sql(statement)


def _fold_statements() -> Iterator[str]:
    sums = ", ".join(f"sum({name})::integer" for name in COUNTS)
    hours = f"SELECT hour, account, template_id, {sums} FROM gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"  # noqa: S608
    latencies = "SELECT day, account, template_id, seconds, sum(messages)::integer FROM gone GROUP BY 1, 2, 3, 4"
    for table, statement in zip(
        ("delivery_hour_changes", "delivery_latency_changes"), _add(hours, latencies), strict=True
    ):
        yield f"WITH gone AS (DELETE FROM {table} RETURNING *) {statement}"  # noqa: S608


def of_all(
    connection: sa.Connection, kept: sa.Table, changes: sa.Table, ask: Callable[[sa.FromClause], sa.Select[Any]]
) -> sa.CompoundSelect[Any]:
    """Return the query over the counts, the pending changes, and, subtracted, the messages set aside.

    In one statement: between two, `fold` could move rows.
    """
    counted = _counted(connection.dialect.name, (-1, _SET_ASIDE))
    text = _hours(counted) if "hour" in kept.c else _latencies(counted)
    columns = [sa.column(column.name, column.type) for column in kept.c]
    taken_away = sa.text(text.replace(":", r"\:")).columns(*columns).subquery("taken_away")
    return sa.union_all(ask(kept), ask(changes), ask(taken_away))


# Messages with implausible times; few, so their counts are computed.
IDS_SET_ASIDE = (
    "(SELECT CAST(row_id AS BIGINT) FROM rows_set_aside WHERE table_name = 'messages' AND reason = 'implausible_time')"
)
_SET_ASIDE = f"(SELECT messages.* FROM messages WHERE id IN {IDS_SET_ASIDE})"  # noqa: S608


def zone_offset_seconds(connection: sa.Connection) -> int:
    """Return the zone of the hours and days, in seconds east of UTC."""
    found = connection.scalar(sa.text("SELECT offset_seconds FROM delivery_zone"))
    return int(found or 0)


def differences(connection: sa.Connection) -> list[str]:
    """Return where the stored counts differ from the messages; empty: nowhere. Only after the closing date."""
    counted = _counted(connection.dialect.name, (1, "messages"))
    hours_open, days_open = _open_parts(connection)
    sums = ", ".join(f"sum({name}) AS {name}" for name in COUNTS)
    any_left = " OR ".join(f"sum({name}) <> 0" for name in COUNTS)

    def of_hours(*sources: str) -> str:
        every = " UNION ALL ".join(f"SELECT {_HOUR_COLUMNS} FROM {source}" for source in sources)  # noqa: S608
        where = f"WHERE {hours_open} GROUP BY hour, account, template_id HAVING {any_left}"
        return f"SELECT hour, account, template_id, {sums} FROM ({every}) AS k {where}"  # noqa: S608

    def of_days(*sources: str) -> str:
        every = " UNION ALL ".join(f"SELECT {_LATENCY_COLUMNS} FROM {source}" for source in sources)  # noqa: S608
        where = f"WHERE {days_open} GROUP BY day, account, template_id, seconds HAVING sum(messages) <> 0"
        return f"SELECT day, account, template_id, seconds, sum(messages) AS messages FROM ({every}) AS k {where}"  # noqa: S608

    found: set[str] = set()
    for unit, kept, right in (
        (
            "hour",
            of_hours("delivery_hours", "delivery_hour_changes"),
            of_hours(f"({_hours(counted)}) AS h", "forgotten_hours"),
        ),
        (
            "day",
            of_days("delivery_latencies", "delivery_latency_changes"),
            of_days(f"({_latencies(counted)}) AS l", "forgotten_latencies"),
        ),
    ):
        for first, second in ((kept, right), (right, kept)):
            query = f"SELECT * FROM ({first}) AS a EXCEPT SELECT * FROM ({second}) AS b"  # noqa: S608
            found |= {
                f"{unit} {row[0]} of {row[1]}, template {row[2] or 'none'}: does not add up"
                for row in connection.exec_driver_sql(query)
            }
    return sorted(found)
