"""The delivery report: sends, outcomes and latencies, per group and in total.

Whole days, months, templates and accounts come from counts that triggers maintain (`rollup`); finer groups, or a zone
whose offset changes, from the messages themselves. Both give the same figures.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from receiver.db import sql
from receiver.db.encryption import Mobile
from receiver.db.tables import (
    UtcDateTime,
    delivery_hour_changes,
    delivery_hours,
    delivery_latencies,
    delivery_latency_changes,
    messages,
    replies,
    retention,
)
from receiver.messages.queries import Clock, in_accounts
from receiver.reporting import rollup
from receiver.reporting.carriers import PREFIX_DIGITS
from receiver.reporting.figures import (
    _FINE,
    _WIDTH,
    DAY,
    HOUR,
    CarrierGroup,
    DeliveryFigures,
    GroupKey,
    Groups,
    ReportQuestion,
    Unit,
    ZonePeriod,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def delivery_report(
    connection: sa.Connection, asked: ReportQuestion, clock: Clock
) -> tuple[dict[GroupKey, DeliveryFigures], DeliveryFigures]:
    """Return the figures of each group, in the order of their keys, and those of all together."""
    groups: Groups = defaultdict(DeliveryFigures)
    offset = _kept_offset(connection, asked)
    if offset is None:
        _add_messages(groups, connection, asked, clock)
    else:
        _add_rollup(groups, connection, asked, clock, offset)
    # Counts that moved elsewhere, as an unmatched message's do when its send is recorded, leave zeros behind.
    groups = defaultdict(DeliveryFigures, {key: figures for key, figures in groups.items() if not figures.empty})
    total = DeliveryFigures()
    for figures in groups.values():
        total.add(figures)
    return {key: groups[key] for key in sorted(groups, key=lambda key: _place(key, asked))}, total


def _place(key: GroupKey, asked: ReportQuestion) -> tuple[float | str, ...]:
    """Return the sort key of a group: its time first."""
    parts = tuple(part or "" for part in key)
    if asked.unit not in _FINE:
        return parts
    moment = datetime.fromisoformat(parts[0])
    return ((moment if moment.tzinfo else moment.replace(tzinfo=asked.zone)).timestamp(), *parts[1:])


def whole_since(connection: sa.Connection, asked: ReportQuestion) -> datetime | None:
    """Return since when a report is complete; None: it is.

    A report from the messages does not count pruned ones.
    """
    if _kept_offset(connection, asked) is not None:
        return None
    horizon = connection.scalar(sa.select(retention.c.horizon).where(retention.c.kind == "messages"))
    return horizon if horizon is not None and asked.since < horizon else None


def is_counted(connection: sa.Connection, asked: ReportQuestion) -> bool:
    """Return whether the stored counts can answer, at a small cost."""
    return _kept_offset(connection, asked) is not None


def _kept_offset(connection: sa.Connection, asked: ReportQuestion) -> int | None:
    """Return the offset of the stored counts if they can answer; None: the messages must."""
    by_hour = asked.unit is Unit.HOUR and asked.counts_alone
    if (asked.unit in _FINE and not by_hour) or asked.allocated:
        return None
    offset = rollup.zone_offset_seconds(connection)
    spans = list(_spans(asked))
    if len(spans) != 1 or spans[0].offset != offset or any(_zone_seconds(at, offset) % DAY for at in spans[0][:2]):
        return None
    return offset


def _spans(asked: ReportQuestion) -> Iterator[ZonePeriod]:
    """Part the time where the zone's offset changes."""
    begin, moment = asked.since, asked.since
    offset = _offset(asked.zone, begin)
    while moment < asked.until:
        # Offsets change on whole quarters of an hour; check every hour, and step back from a change.
        moment = min(moment + timedelta(hours=1), asked.until)
        if moment < asked.until and _offset(asked.zone, moment) != offset:
            change = moment
            while _offset(asked.zone, change - timedelta(minutes=15)) != offset:
                change -= timedelta(minutes=15)
            yield ZonePeriod(begin, change, offset)
            begin, offset = change, _offset(asked.zone, moment)
    yield ZonePeriod(begin, asked.until, offset)


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    found = moment.astimezone(zone).utcoffset()
    return int(found.total_seconds()) if found is not None else 0


def _zone_seconds(moment: datetime, offset: int) -> int:
    return int((moment - _EPOCH).total_seconds()) + offset


@lru_cache(maxsize=4096)
def _label(unit: Unit | None, zone_seconds: int) -> tuple[str, ...]:
    """Name the group of a moment of the zone, in seconds from 1970."""
    if unit is None:
        return ()
    moment = _EPOCH + timedelta(seconds=zone_seconds)
    match unit:
        case Unit.MONTH:
            return (f"{moment:%Y-%m}",)
        case Unit.DAY:
            return (moment.date().isoformat(),)
        case _:
            return (moment.replace(tzinfo=None).isoformat(timespec="minutes"),)


def name_of_time(begin: datetime, unit: Unit, zone: ZoneInfo) -> str:
    """Return the name of an hour or of five minutes, `begin` being local; repeated ones have their offset.

    They repeat when summer time ends. In the same minute before the change, clocks are further ahead of UTC.
    """
    bare = begin.replace(tzinfo=None)
    for moment in (bare, bare + timedelta(seconds=_WIDTH[unit] - 1)):
        if _offset(zone, moment.replace(tzinfo=zone, fold=0)) > _offset(zone, moment.replace(tzinfo=zone, fold=1)):
            return begin.isoformat(timespec="minutes")
    return bare.isoformat(timespec="minutes")


def replies_by_day(connection: sa.Connection, asked: ReportQuestion) -> dict[str, tuple[int, int]]:
    """Return (replies, opt-outs among them) of its accounts, for each day of the question's zone that has any."""
    found: dict[str, tuple[int, int]] = {}
    for span in _spans(asked):
        seconds = f"({sql.epoch_seconds(connection.dialect.name, 'received_at')} + {span.offset})"
        at: sa.ColumnElement[int] = sa.literal_column(f"{seconds} - {seconds} % {DAY}")
        column = replies.c
        within = (column.received_at >= span.since, column.received_at < span.until)
        query = sa.select(at.label("at"), sa.func.count(), sa.func.count().filter(column.opt_out)).where(*within)
        if asked.accounts is not None:  # which stand in the message
            query = query.select_from(replies.outerjoin(messages, messages.c.id == column.message_id))
            query = query.where(*in_accounts(replies, asked.accounts))
        for moment, count, opt_outs in connection.execute(query.group_by(sa.text("at"))):
            (day,) = _label(Unit.DAY, int(moment))
            before = found.get(day, (0, 0))
            found[day] = (before[0] + count, before[1] + opt_outs)
    return found


# --- From what is kept ----------------------------------------------------------------------------------


def _add_rollup(groups: Groups, connection: sa.Connection, asked: ReportQuestion, clock: Clock, offset: int) -> None:
    first, end = (_zone_seconds(at, offset) // HOUR for at in (asked.since, asked.until))
    # Messages without a receipt are pending if sent after a moment, else no_receipt: within its hour, the messages
    # decide.
    split = _zone_seconds(clock.now - clock.no_receipt_after, offset) // HOUR

    def of_hours(table: sa.FromClause) -> sa.Select[Any]:
        hours = table.c
        pending, no_receipt = (
            sa.func.sum(sa.case((part, hours.waiting), else_=0)) for part in (hours.hour > split, hours.hour < split)
        )
        sums = [*(sa.func.sum(hours[name]) for name in _SUMMED), pending, no_receipt]
        at = hours.hour * HOUR if asked.unit is Unit.HOUR else hours.hour // (DAY // HOUR) * DAY
        keys = _keys(hours, asked, at)
        bounds = (hours.hour >= first, hours.hour < end)
        return sa.select(*keys, *sums).where(*bounds, *_narrowed(hours, asked)).group_by(*keys)

    rows = connection.execute(rollup.of_all(connection, delivery_hours, delivery_hour_changes, of_hours))
    _add_counts(groups, rows, (*_SUMMED, "pending", "no_receipt"), asked)

    if first <= split < end:
        begin = _EPOCH + timedelta(seconds=split * HOUR - offset)
        _add_waiting(groups, connection, asked, clock, ZonePeriod(begin, begin + timedelta(hours=1), offset))
    if not asked.counts_alone:
        _add_rollup_latencies(groups, connection, asked, first, end)


def _add_rollup_latencies(
    groups: Groups, connection: sa.Connection, asked: ReportQuestion, first: int, end: int
) -> None:
    # A group's latencies come as two lists side by side: a row for each of them costs three times as much.
    gather, read = (sa.func.array_agg, list) if connection.dialect.name == "postgresql" else _JSON_LISTS

    def of_latencies(table: sa.FromClause) -> sa.Select[Any]:
        latencies = table.c
        keys = _keys(latencies, asked, latencies.day * DAY)
        bounds = (latencies.day >= first * HOUR // DAY, latencies.day < end * HOUR // DAY)
        narrowed = (*bounds, *_narrowed(latencies, asked))
        if asked.unit is Unit.DAY and asked.by_template:  # groups nearly as fine as the rows: little would add up
            lists = (gather(latencies.seconds).label("seconds"), gather(latencies.messages).label("messages"))
            return sa.select(*keys, *lists).where(*narrowed).group_by(*keys)
        count = sa.func.sum(latencies.messages).label("messages")
        added = (
            sa.select(*keys, latencies.seconds, count).where(*narrowed).group_by(*keys, latencies.seconds).subquery()
        )
        outer = [added.c[key.name] for key in keys]
        lists = (gather(added.c.seconds).label("seconds"), gather(added.c.messages).label("messages"))
        return sa.select(*outer, *lists).group_by(*outer)

    for *cells, of_seconds, of_messages in connection.execute(
        rollup.of_all(connection, delivery_latencies, delivery_latency_changes, of_latencies)
    ):
        found = groups[_key(cells, asked)].latencies
        for seconds, count in zip(read(of_seconds), read(of_messages), strict=True):
            found[seconds] += count


_JSON_LISTS = (sa.func.json_group_array, json.loads)


def _keys(columns: Any, asked: ReportQuestion, at: sa.ColumnElement[int]) -> list[sa.ColumnElement[Any]]:
    moment = (at if asked.unit else sa.literal(0)).label("at")
    return [moment, *(columns[name] for name in _key_names(asked))]


_SUMMED = tuple(name for name in rollup.COUNTS if name != "waiting")
_FIGURE_OF = {"open": "outcome_unknown"}  # where a count has another name than the figure


def _add_counts(groups: Groups, rows: Iterable[Any], counts: Sequence[str], asked: ReportQuestion) -> None:
    """Add rows of (moment, keys …, counts …)."""
    names = [_FIGURE_OF.get(name, name) for name in counts]
    for row in rows:
        figures = groups[_key(row[: -len(names)], asked)]
        for name, count in zip(names, row[-len(names) :], strict=True):
            if count:
                setattr(figures, name, getattr(figures, name) + int(count))


def _add_latencies(groups: Groups, rows: Iterable[Any], asked: ReportQuestion) -> None:
    """Add rows of (moment, keys …, seconds, messages)."""
    for *cells, seconds, count in rows:
        groups[_key(cells, asked)].latencies[seconds] += int(count)


def _key(cells: Sequence[Any], asked: ReportQuestion) -> GroupKey:
    at, *keys = cells
    # An empty string stands for none. Bytes come from a damaged row that SQLite's triggers have counted.
    texts = (key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in keys)
    return (*_label(asked.unit, int(at)), *(text or None for text in texts))


def _key_names(asked: ReportQuestion) -> tuple[str, ...]:
    pairs = (("template_id", asked.by_template), ("account", asked.by_account))
    allocated = tuple(allocated.name for allocated in asked.allocated if allocated.grouped)
    return tuple(name for name, wanted in pairs if wanted) + allocated


def _narrowed(columns: Any, asked: ReportQuestion) -> Iterator[sa.ColumnElement[bool]]:
    if asked.accounts is not None:
        yield columns.account.in_(asked.accounts)
    if asked.template_id is not None:
        yield columns.template_id == asked.template_id


# --- From the messages ----------------------------------------------------------------------------------


def _add_messages(groups: Groups, connection: sa.Connection, asked: ReportQuestion, clock: Clock) -> None:
    if asked.allocated:
        asked = replace(asked, allocated=tuple(_looked_up(connection, asked)))
    for span in _spans(asked):
        found: Groups = defaultdict(DeliveryFigures)
        _add_span(found, connection, asked, clock, span)
        query = _query(connection, asked, "count(*) AS unmatched", "reported_at", span.offset)
        rows = _rows(connection, f"{query} AND recorded_at IS NULL", asked, clock, span)
        _add_counts(found, rows, ["unmatched"], asked)
        for key, figures in found.items():
            groups[_told_apart(key, asked, span)].add(figures)


def _told_apart(key: GroupKey, asked: ReportQuestion, span: ZonePeriod) -> GroupKey:
    if asked.unit not in _FINE or key[0] is None:
        return key
    begin = datetime.fromisoformat(key[0]).replace(tzinfo=timezone(timedelta(seconds=span.offset)))
    return (name_of_time(begin, asked.unit, asked.zone), *key[1:])


_PREFIX = f"substr(mobile, 1, {PREFIX_DIGITS})"


def _looked_up(connection: sa.Connection, asked: ReportQuestion) -> Iterator[CarrierGroup]:
    """Look up every prefix in the period once."""
    moments = {"IS NOT NULL": rollup.AGE_FROM, "IS NULL": "reported_at"}
    # With each, a number that begins with it: if numbers are encrypted, it yields the prefix.
    query = " UNION ".join(
        f"SELECT {_PREFIX} AS prefix, min(mobile) AS mobile FROM messages"  # noqa: S608
        f" WHERE recorded_at {matched} AND {moment} >= :since AND {moment} < :until GROUP BY 1"
        for matched, moment in moments.items()
    )
    times = {"since": asked.since, "until": asked.until}
    binds = [sa.bindparam(name, value, type_=UtcDateTime()) for name, value in times.items()]
    rows = connection.execute(sa.text(query).bindparams(*binds).columns(sa.column("prefix"), mobile=Mobile()))
    prefixes = {row.prefix: row.mobile[:PREFIX_DIGITS] for row in rows}
    for allocated in asked.allocated:
        found = {kept: allocated.of_prefix(prefix) or "" for kept, prefix in prefixes.items()}
        yield replace(allocated, of_prefixes=json.dumps(found))


def _add_span(groups: Groups, connection: sa.Connection, asked: ReportQuestion, clock: Clock, span: ZonePeriod) -> None:
    """Add up the recorded messages of a time in which the zone has one offset."""
    conditions = {name: what for name, what in rollup.COUNTS.items() if name not in ("waiting", "unmatched")}
    counts = ", ".join(f"count(*) FILTER (WHERE {what}) AS {name}" for name, what in conditions.items())
    query = _query(connection, asked, counts, rollup.AGE_FROM, span.offset)
    rows = _rows(connection, f"{query} AND recorded_at IS NOT NULL", asked, clock, span)
    _add_counts(groups, rows, list(conditions), asked)
    _add_waiting(groups, connection, asked, clock, span)
    seconds = rollup.latency_seconds(connection.dialect.name)
    query = _query(connection, asked, f"{seconds} AS seconds, count(*) AS messages", rollup.AGE_FROM, span.offset)
    query = f"{query} AND {rollup.COUNTS['delivered']} AND sent_at IS NOT NULL"
    _add_latencies(groups, _rows(connection, query, asked, clock, span, "seconds"), asked)


def _add_waiting(
    groups: Groups, connection: sa.Connection, asked: ReportQuestion, clock: Clock, span: ZonePeriod
) -> None:
    """Add up those of them that have no report: pending, or no_receipt by now."""
    counts = ", ".join(
        f"count(*) FILTER (WHERE {rollup.AGE_FROM} {compared} :cutoff) AS {name}"
        for name, compared in (("pending", ">="), ("no_receipt", "<"))
    )
    query = _query(connection, asked, counts, rollup.AGE_FROM, span.offset)
    query = f"{query} AND {rollup.COUNTS['waiting']}"
    rows = _rows(connection, query, asked, clock, span)
    _add_counts(groups, rows, ["pending", "no_receipt"], asked)


def _query(connection: sa.Connection, asked: ReportQuestion, what: str, moment: str, offset: int) -> str:
    at = "0"
    if asked.unit is not None:
        seconds = f"({sql.epoch_seconds(connection.dialect.name, moment)} + {offset})"
        at = f"{seconds} - {seconds} % {_WIDTH[asked.unit]}"
    keys = "".join(f", {name}" for name in _key_names(asked))
    each = "json_each_text(CAST(:{0}s AS json))" if connection.dialect.name == "postgresql" else "json_each(:{0}s)"
    joined = "".join(
        f" JOIN (SELECT key AS {name}_prefix, value AS {name} FROM {each.format(name)}) AS of_{name}"  # noqa: S608
        f" ON {name}_prefix = {_PREFIX}"
        for name in (allocated.name for allocated in asked.allocated)
    )
    within = f"{moment} >= :since AND {moment} < :until AND messages.id NOT IN {rollup.IDS_SET_ASIDE}"
    return f"SELECT {at} AS at{keys}, {what} FROM messages{joined} WHERE {within}"  # noqa: S608


def _rows(
    connection: sa.Connection,
    query: str,
    asked: ReportQuestion,
    clock: Clock,
    span: ZonePeriod,
    *more_keys: str,
) -> Iterable[Any]:
    times = {"since": span.since, "until": span.until}
    if ":cutoff" in query:
        times["cutoff"] = clock.now - clock.no_receipt_after
    binds = [sa.bindparam(name, value, type_=UtcDateTime()) for name, value in times.items()]
    if asked.accounts is not None:
        query += " AND account IN :accounts"
        binds.append(sa.bindparam("accounts", list(asked.accounts), expanding=True))
    if asked.template_id is not None:
        query += " AND template_id = :template_id"
        binds.append(sa.bindparam("template_id", asked.template_id))
    for allocated in asked.allocated:
        binds.append(sa.bindparam(f"{allocated.name}s", allocated.of_prefixes))
        if allocated.wanted is not None:
            query += f" AND {allocated.name} = :wanted_{allocated.name}"
            binds.append(sa.bindparam(f"wanted_{allocated.name}", allocated.wanted))
    grouped = ", ".join(("at", *_key_names(asked), *more_keys))
    return connection.execute(sa.text(f"{query} GROUP BY {grouped}").bindparams(*binds))
