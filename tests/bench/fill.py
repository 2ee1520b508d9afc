"""`python -m tests.bench.fill`: a PostgreSQL database as years of use leave it, for the query bench.

Ninety days, forty templates of which a few do most, some numbers far more often than others, two of a hundred messages
replied to; a share each of failed, unreported, refused, unmatched and conflicting ones, up to the present minute.
"""

from __future__ import annotations

import argparse
import sys
import time

import psycopg
import sqlalchemy as sa

from receiver.db import migrate
from receiver.db.engine import Database
from receiver.db.tables import messages, receipts, replies
from receiver.reporting import rollup

_DAYS = 90
_STATEMENTS = {
    # One row a message, in the order of their sending. Each `random()` is drawn once, in the inner query.
    "messages": f"""
    INSERT INTO messages (id, account, task_id, mobile, status, reported_at, seen, recorded_at, sent_at, template_id,
                          success_counts, remain_point, send_state, error_message, updated_at)
    SELECT n, 'default', CASE WHEN NOT refused THEN (7000000000000000000 + n)::text END, mobile, status,
           CASE WHEN status > 0 THEN date_trunc('second', sent_at + latency) END,
           CASE WHEN status = 0 THEN 0 WHEN conflict < 0.001 THEN 12 ELSE 1 << status END,
           CASE WHEN NOT unmatched THEN sent_at + interval '50 ms' END, CASE WHEN NOT unmatched THEN sent_at END,
           CASE WHEN NOT unmatched THEN template END, CASE WHEN NOT unmatched AND NOT refused THEN 1 END,
           NULL, CASE WHEN refused THEN 'refused' END, CASE WHEN refused THEN '相同手机号码一分钟之内只可发送一次' END,
           date_trunc('milliseconds', sent_at + latency)
    FROM (
        SELECT *, conflict BETWEEN 0.10 AND 0.103 AS refused, conflict BETWEEN 0.20 AND 0.202 AS unmatched,
               CASE WHEN conflict BETWEEN 0.10 AND 0.103 THEN 0 WHEN conflict BETWEEN 0.20 AND 0.202 THEN 3
                    WHEN fate < 0.94 THEN 3 WHEN fate < 0.97 THEN 2 WHEN fate < 0.975 THEN 1 ELSE 0 END AS status
        FROM (
            SELECT n, date_trunc('milliseconds', now() - (:count - n) * interval '{_DAYS} days' / :count) AS sent_at,
                   CASE WHEN random() < 0.01 THEN '1390000' || lpad((random() * 20)::int::text, 4, '0')
                        ELSE '1' || (3 + (random() * 6)::int)::text || lpad((random() * 3000000)::int::text, 9, '0')
                   END AS mobile,
                   (540 + floor(40 * power(random(), 3)))::int::text AS template,
                   exp(1.1 + 0.8 * sqrt(-2 * ln(random() + 1e-12)) * cos(6.283 * random()))
                       * CASE WHEN random() < 0.003 THEN 10000 ELSE 1 END * interval '1 second' AS latency,
                   random() AS fate, random() AS conflict
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
        ) AS drawn
    ) AS decided
    """,
    "receipts": """
    INSERT INTO receipts (message_id, push_id, received_at, last_seen_at, copies, vendor_status, reported_at)
    SELECT id, gen_random_uuid(), reported_at + interval '1 second', reported_at + interval '1 second', 1,
           said, reported_at
    FROM messages CROSS JOIN LATERAL unnest(
        CASE WHEN seen = 12 THEN ARRAY['1', '0'] WHEN status = 3 THEN ARRAY['1'] WHEN status = 2 THEN ARRAY['0']
             ELSE ARRAY['7'] END) AS said
    WHERE status > 0 AND id BETWEEN :first AND :last ORDER BY reported_at
    """,
    "replies": """
    INSERT INTO replies (message_id, push_id, received_at, last_seen_at, copies, content, content_sha256, replied_at,
                         opt_out)
    SELECT id, gen_random_uuid(), reported_at + interval '1 minute', reported_at + interval '1 minute', 1, content,
           sha256(content::bytea), reported_at + interval '1 minute', content = '退订'
    FROM (SELECT *, (ARRAY['收到', '谢谢', '退订', '好的,明天见', '这是什么?没申请过 ' || id, 'ok ' || id])[1 + id % 6]
                    AS content
          FROM messages WHERE status = 3 AND id % 50 = 0 AND id BETWEEN :first AND :last) AS written
    ORDER BY reported_at
    """,
}
_CHUNK = 500_000


def fill(url: str, count: int) -> None:
    """Make the schema and fill it; a filled one is left as it is."""
    database = Database(url.replace("postgresql://", "postgresql+psycopg://"), patience_seconds=24 * 3600.0)
    migrate.upgrade(database)
    with database.reading() as connection:
        if connection.scalar(sa.select(sa.func.max(messages.c.id))):
            return

    indexes = [index for table in (messages, receipts, replies) for index in table.indexes]

    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))  # the roll-up is made at the end
        connection.execute(sa.text("SELECT setseed(0.540)"))
        for index in indexes:
            index.drop(connection)
        for name, statement in _STATEMENTS.items():
            for first in range(1, count + 1, _CHUNK):
                last = min(count, first + _CHUNK - 1)
                connection.execute(sa.text(statement), {"first": first, "last": last, "count": count})
            print(f"{name} are there", file=sys.stderr)
        connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('messages', 'id'), :count)"), {"count": count})
        for index in indexes:
            index.create(connection)
        rollup.rebuild(connection, offset_seconds=8 * 3600)

    begun = time.monotonic()
    database.write(work)
    with psycopg.connect(url, autocommit=True) as plain:
        plain.execute("VACUUM ANALYZE")
    print(f"{count:,} messages in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    database.close()


def main() -> int:
    """Fill the database that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="postgresql://… of an empty database")
    parser.add_argument("--messages", type=int, default=10_000_000)
    given = parser.parse_args()
    fill(given.url, given.messages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
