"""The views for SQL say what the API says, and a reader's role reaches nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from receiver.app import create_app
from receiver.auth.api_keys import Scope
from receiver.messages import record_sent, record_verified
from tests.conftest import make_key
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
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
    ]
    save_pushes(runtime.database, pushes)
    now = runtime.now()
    runtime.database.write(lambda connection: record_sent(connection, sends, recorded_at=now))
    used = {"account": "default", "task_id": "1", "mobile": "15080921090"}
    runtime.database.write(lambda connection: record_verified(connection, **used, verified_at=NOON))


def test_embedded_database_has_no_roles_and_says_what_to_do(tmp_path: Path) -> None:
    refused = ServeProcess(tmp_path).run("db", "create-report-role", "nightly")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no roles; export, or use PostgreSQL" in refused.stderr


def test_views_say_what_the_lists_say(postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    fill(runtime)
    client = create_app(runtime).test_client()
    headers = {"Authorization": make_key(runtime, Scope.READ)}
    for name in ("messages", "receipts", "replies"):
        listed = client.get(f"/api/v1/{name}?limit=100", headers=headers).json["items"][::-1]
        with runtime.database.reading() as connection:
            rows = connection.exec_driver_sql(f"SELECT * FROM reporting.{name} ORDER BY id").mappings().all()
        assert len(rows) == len(listed) > 1
        for row, item in zip(rows, listed, strict=True):
            assert {column: _plain(column, value) for column, value in row.items() if column in item} == {
                column: _plain(column, value) for column, value in item.items() if column in row
            }
            assert set(item) - set(row) <= {"late", "latency_seconds", "receipt_count", "reply_count", "extra"}
            if name == "messages":
                latency = row["latency"].total_seconds() if row["latency"] is not None else None
                assert latency == item["latency_seconds"]


def _plain(column: str, value: Any) -> Any:
    """Give a value as both sides can be held against each other; `no_receipt` depends on the present moment."""
    if isinstance(value, str) and column.endswith("_at"):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if value == "no_receipt":
        return "pending"
    return None if value is None or isinstance(value, bool) else str(value)


def test_reader_reads_the_views_and_nothing_else(tmp_path: Path, postgres_runtime: Runtime) -> None:
    runtime = postgres_runtime
    fill(runtime)
    url = runtime.settings.database_url.replace("+psycopg", "")
    process = ServeProcess(tmp_path, url)
    name = f"nightly_{runtime.now():%H%M%S%f}"
    passwords = [process.run("db", "create-report-role", name).stdout.splitlines()[-1] for _ in range(2)]
    assert passwords[0] != passwords[1]
    parts = make_url(url)
    login = {"host": parts.host, "port": parts.port, "dbname": parts.database, "user": name, "password": passwords[1]}
    with psycopg.connect(**login) as reader:  # type: ignore[arg-type]
        assert reader.execute("SELECT version FROM reporting.version").fetchone() == (1,)
        assert reader.execute("SELECT count(*) FROM receipts").fetchone() == (4,)  # by its search path
        query = "SELECT mobile, max(latency) FROM reporting.messages WHERE template_id = '540' GROUP BY 1"
        assert reader.execute(query).fetchall() == [("150****1090", timedelta(seconds=4))]
        assert reader.execute("SHOW statement_timeout").fetchone() == ("10min",)
        for forbidden in ("SELECT * FROM public.messages", "SELECT * FROM public.api_keys", "CREATE TABLE public.x ()"):
            with pytest.raises(psycopg.Error):
                reader.execute(forbidden)
            reader.rollback()
    for wrong in ("postgres", 'x"; DROP', "Ünder"):
        refused = process.run("db", "create-report-role", wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
    runtime.database.write(lambda c: c.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}"))
