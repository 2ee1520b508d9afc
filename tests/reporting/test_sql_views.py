"""The views for SQL say what the API says, and a reader's role reaches nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.db.sqlite import connect_to_read, path_of
from receiver.messages.fields import TIMES, TO_JSON, Field, FieldType, fields_of
from receiver.messages.queries import MessageRow, ReceiptRow, ReplyRow
from receiver.messages.recording import record_sent, record_verified
from receiver.messages.stamps import is_any_unstamped
from receiver.reporting.sql_views import renew_statements
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess
from tests.harness.waiting import await_true

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from receiver.runtime import Runtime


def fill(runtime: Runtime) -> None:
    sends = [
        make_send(task_id="1", template_id="540", sent_at=NOON),
        make_send(task_id="2", mobile="12345", sent_at=NOON),
        make_send(task_id=None, reference="r", sent_at=NOON, error_message="余额不足", mobile="8613800138"),
    ]
    pushes = [
        make_push(task_id="1", second=4),
        make_push(task_id="1", status="0", second=2),
        make_push(task_id="nobody", status="odd"),
        make_push(task_id="1", mobile="1508092****"),
        make_push(task_id="1", content="退订"),
        make_push(task_id="1", content="please stop", second=9),
        make_push(task_id=None, content="TD", second=9),
        make_push(task_id="1", content="我的号码是 139 0000 0099", second=12),
        make_push(
            body=b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:30&no=a13900000099&x=%E6%94%B6"
        ),
    ]
    save_pushes(runtime.database, pushes)
    now = runtime.now()
    runtime.database.write(lambda connection: record_sent(connection, sends, recorded_at=now))
    used = {"account": "default", "task_id": "1", "mobile": "15080921090"}
    runtime.database.write(lambda connection: record_verified(connection, **used, verified_at=NOON))
    runtime.projector.nudge()
    await_true(lambda: not runtime.ask(is_any_unstamped))


def test_embedded_database_has_no_roles_and_says_what_to_do(tmp_path: Path) -> None:
    refused = ServeProcess(tmp_path).run("db", "create-report-role", "nightly")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no roles; export, or use PostgreSQL" in refused.stderr


ROWS = {"messages": MessageRow, "receipts": ReceiptRow, "replies": ReplyRow}
VIEWS = pytest.mark.parametrize("name", list(ROWS))


def view(runtime: Runtime, name: str) -> str:
    return f"reporting.{name}" if runtime.database.postgresql else f"reporting_{name}"


def read_by_python(path: Path, query: str) -> list[dict[str, Any]]:
    """The rows that the SQLite of this Python finds: in a process of its own, as two of them may not share one."""
    script = """if True:
        import json, sqlite3, sys
        found = sqlite3.connect(sys.argv[1]).execute(sys.argv[2])
        print(json.dumps([{name: value for (name, *_), value in zip(found.description, row)} for row in found]))
    """
    done = subprocess.run([sys.executable, "-c", script, str(path), query], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def read_view(runtime: Runtime, name: str, *, by_python: bool = False) -> list[dict[str, Any]]:
    query = f"SELECT * FROM {view(runtime, name)} ORDER BY id"
    if not runtime.database.postgresql:
        path = path_of(runtime.settings.database_url)
        if by_python:
            return read_by_python(path, query)
        # By a connection of another program, which has none of our functions.
        with closing(connect_to_read(path)) as connection:
            found = connection.execute(query)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found]
    with runtime.database.reading() as connection:
        return [dict(row) for row in connection.exec_driver_sql(query).mappings()]


@VIEWS
def test_views_have_the_columns_of_the_lists_in_their_order_and_say_the_same(runtime: Runtime, name: str) -> None:
    fill(runtime)
    client = create_app(runtime).test_client()
    headers = {"Authorization": make_key(runtime, Scope.READ)}
    listed = client.get(f"/api/v1/{name}?limit=100", headers=headers).json["items"][::-1]
    rows = read_view(runtime, name)
    assert runtime.database.postgresql or read_view(runtime, name, by_python=True) == rows
    assert len(rows) == len(listed) > 1
    assert [list(row) for row in rows] == [[field.name for field in fields_of(ROWS[name])]] * len(rows)
    if not runtime.settings.encryption_keys:
        assert [
            {field.name: _as_listed(field, row[field.name]) for field in fields_of(ROWS[name])} for row in rows
        ] == [_without_text(runtime, item) for item in listed]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_damaged_or_cut_texts_of_the_embedded_database_show_no_number_and_end_no_view(
    make_runtime: Callable[..., Runtime],
) -> None:
    runtime = make_runtime(encryption_keys=())
    bodies = [f"mobile=15080921090&taskid={task_id}&status=1&receivetime=2026-11-23+09:14:30" for task_id in (1, 2, 3)]
    bodies[1] += "&a=%00+13900001234&b%00+13900001234=c&plain=d"
    pushes = [make_push(body=body.encode()) for body in bodies]
    save_pushes(runtime.database, [*pushes, make_push(content="x"), make_push(content="TD", second=1)])

    def damage(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE receipts SET extra = '{bad' WHERE id = 1")
        connection.exec_driver_sql("UPDATE replies SET content = char(0) || ' 13900001234' WHERE content = 'x'")

    runtime.database.write(damage)
    extras = [json.loads(row["extra"]) for row in read_view(runtime, "receipts")]
    assert extras == [{}, {"a": "***", "***": "c", "plain": "d"}, {}]
    for name in ("receipts", "replies"):
        rows = read_view(runtime, name, by_python=True)
        assert len(rows) == len(read_view(runtime, name)) > 1
        assert "13900001234" not in str(rows)
    assert [row["content"] for row in rows] == ["***", "TD"]


def _without_text(runtime: Runtime, item: dict[str, Any]) -> dict[str, Any]:
    """The item as SQLite shows it: without regular expressions, a text with a number is hidden whole."""
    if runtime.database.postgresql:
        return item
    texts: dict[str, Any] = {name: "***" for name in ("content",) if "****" in item.get(name, "")}
    if "extra" in item:
        texts["extra"] = {key: "***" if "****" in text else text for key, text in item["extra"].items()}
    return item | texts


def _as_listed(field: Field, value: Any) -> Any:
    """A value of a view as the API writes it."""
    if value is None:
        return None
    if field.type is FieldType.BOOLEAN:
        assert value in (0, 1)
        return bool(value)
    if field.type is FieldType.TEXTS:
        assert isinstance(value, str)  # which every tool can load
        return json.loads(value)
    return value if field.type in TIMES and isinstance(value, str) else TO_JSON[field.type](value)


def test_view_says_late_and_no_receipt_by_the_ages_of_the_settings(
    make_runtime: Callable[..., Runtime],
) -> None:
    def statuses() -> dict[str, tuple[str, bool]]:
        return {row["task_id"]: (row["status"], bool(row["late"])) for row in read_view(runtime, "messages")}

    runtime = make_runtime()
    now = runtime.now()
    sends = [
        make_send(task_id=task_id, sent_at=now - age)
        for task_id, age in (("new", timedelta(0)), ("two", timedelta(minutes=2)), ("old", timedelta(hours=73)))
    ]
    runtime.recorder.record(sends)
    runtime.keep_ages()
    assert statuses() == {"new": ("pending", False), "two": ("pending", True), "old": ("no_receipt", False)}
    other = make_runtime(late_after=timedelta(minutes=5), no_receipt_after=timedelta(hours=100))
    other.make_ready()  # the one that starts last decides
    assert statuses() == {"new": ("pending", False), "two": ("pending", False), "old": ("pending", True)}


def test_counted_at_is_found_by_an_index(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "INSERT INTO messages (account, task_id, mobile, sent_at, recorded_at) SELECT 'default', n::text,"
            " '15080921090', now() - n * interval '1 minute', now() FROM generate_series(1, 20000) AS n"
        )
        connection.exec_driver_sql("ANALYZE messages")

    runtime.database.write(work)
    for what in ("count(*), count(*) FILTER (WHERE late)", "max(counted_at)"):
        query = f"SELECT {what} FROM reporting.messages WHERE counted_at >= now() - interval '1 hour'"
        with runtime.database.reading() as connection:
            plan = " ".join(connection.exec_driver_sql(f"EXPLAIN {query}").scalars())
        assert "ix_messages_counted_at" in plan
        assert "Seq Scan on messages" not in plan


def test_columns_have_the_types_that_tools_load(postgres_runtime: Runtime) -> None:
    """Of an interval dlt loads nothing; of a numeric, some make text."""
    text = {"text", "character varying"}
    types = {
        FieldType.ID: {"bigint"},
        FieldType.COUNT: {"integer", "bigint"},
        FieldType.NUMBER: {"double precision"},
        FieldType.BOOLEAN: {"boolean"},
        FieldType.UUID: {"uuid"},
        FieldType.PLATFORM_TIME: {"timestamp with time zone"},
        FieldType.OUR_TIME: {"timestamp with time zone"},
    }
    with postgres_runtime.database.reading() as connection:
        columns = connection.exec_driver_sql(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'reporting'"
        )
        found = {name: text for name, text in columns}  # noqa: C416  (rows are no pairs to mypy)
    for name, row in ROWS.items():
        for field in fields_of(row):
            assert found[f"{name}.{field.name}"] in types.get(field.type, text), field.name


def test_schema_views_and_columns_are_described(postgres_runtime: Runtime) -> None:
    with postgres_runtime.database.reading() as connection:
        columns = connection.exec_driver_sql(
            "SELECT relname || '.' || attname, col_description(attrelid, attnum)"
            " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " WHERE relnamespace = 'reporting'::regnamespace AND attnum > 0"
        )
        described = {name: text for name, text in columns}  # noqa: C416  (rows are no pairs to mypy)
        views = connection.exec_driver_sql(
            "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = 'reporting'::regnamespace"
        ).scalars()
        assert all(views)
        assert connection.exec_driver_sql("SELECT obj_description('reporting'::regnamespace, 'pg_namespace')").scalar()
    fields = {f"{name}.{field.name}": field.description for name, row in ROWS.items() for field in fields_of(row)}
    assert {name: text for name, text in described.items() if not name.startswith("version.")} == fields
    assert all(described.values())


def test_upgrade_leaves_who_may_read_the_views(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    name = f"by_hand_{runtime.now():%H%M%S%f}"

    def work(connection: sa.Connection) -> list[str]:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
        connection.exec_driver_sql(f"GRANT SELECT ON reporting.receipts TO {name}")
        for statement in list(renew_statements("postgresql", connection)):
            connection.exec_driver_sql(statement)
        may = "SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace"
        found = connection.exec_driver_sql(f"{may} AND has_table_privilege('{name}', oid, 'SELECT')").scalars().all()
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")
        return list(found)

    assert runtime.database.write(work) == ["receipts"]


def test_reader_may_change_its_defaults_and_make_temporary_tables_as_it_is_told(
    tmp_path: Path, postgres_runtime: Runtime
) -> None:
    url = postgres_runtime.settings.database_url.replace("+psycopg", "")
    name = f"defaults_{postgres_runtime.now():%H%M%S%f}"
    made = ServeProcess(tmp_path, url).run("db", "create-report-role", name)
    assert "Defaults, which a session may change by SET: read only, ten minutes a statement" in made.stderr
    (advice,) = [line.strip() for line in made.stderr.splitlines() if "REVOKE" in line]
    login = make_url(url).set(username=name, password=made.stdout.splitlines()[-1])
    with psycopg.connect(login.render_as_string(hide_password=False), autocommit=True) as reader:
        assert reader.execute("SHOW statement_timeout").fetchone() == ("10min",)
        reader.execute("SET statement_timeout = 0; SET default_transaction_read_only = off")
        assert reader.execute("SHOW statement_timeout").fetchone() == ("0",)
        reader.execute("CREATE TEMPORARY TABLE first ()")
        with psycopg.connect(url) as owner:
            owner.execute(advice.replace("…", f'"{login.database}"'))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("CREATE TEMPORARY TABLE second ()")
    postgres_runtime.database.write(lambda c: c.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}"))


def test_reader_reads_the_views_and_nothing_else(tmp_path: Path, postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    fill(runtime)
    url = runtime.settings.database_url.replace("+psycopg", "")
    process = ServeProcess(tmp_path, url)
    name = f"nightly_{runtime.now():%H%M%S%f}"
    passwords, limits = [], []
    for more in ((), ("--connections", "12")):
        made = process.run("db", "create-report-role", name, *more)
        passwords.append(made.stdout.splitlines()[-1])
        with runtime.database.reading() as connection:
            limit = connection.exec_driver_sql(f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{name}'").scalar()
        limits.append((limit, f" {limit} connections" in made.stderr))
    assert limits == [(10, True), (12, True)]
    assert passwords[0] != passwords[1]
    parts = make_url(url)
    login = {"host": parts.host, "port": parts.port, "dbname": parts.database, "user": name, "password": passwords[1]}
    with psycopg.connect(**login) as reader:  # type: ignore[arg-type]
        assert reader.execute("SELECT version FROM reporting.version").fetchone() == (2,)
        assert reader.execute("SELECT count(*) FROM receipts").fetchone() == (5,)  # by its search path
        query = "SELECT mobile, max(latency_seconds) FROM reporting.messages WHERE template_id = '540' GROUP BY 1"
        assert reader.execute(query).fetchall() == [("150****1090", 4.0)]
        shown = {name: reader.execute(f"SHOW {name}").fetchone() for name in ("statement_timeout", "jit")}
        assert shown == {"statement_timeout": ("10min",), "jit": ("off",)}
        assert reader.execute("SHOW max_parallel_workers_per_gather").fetchone() == ("0",)
        for forbidden in ("SELECT * FROM public.messages", "SELECT * FROM public.api_keys", "CREATE TABLE public.x ()"):
            with pytest.raises(psycopg.Error):
                reader.execute(forbidden)
            reader.rollback()
    for wrong in ("postgres", 'x"; DROP', "Ünder"):
        refused = process.run("db", "create-report-role", wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
    runtime.database.write(lambda c: c.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}"))
