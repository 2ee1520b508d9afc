"""The runbook: each alarm in one place, short pages, and those of its commands that need more than a server."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from receiver.alerting.rules import Alarm
from tests.audit.test_verification import fault, note, tamper
from tests.conftest import SECRET
from tests.harness.postgres import PostgresServer
from tests.harness.postgres_binaries import find_binaries
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.runtime import Runtime

RUNBOOK = Path(__file__).parents[2] / "deploy/docs/runbook"
PAGES = sorted(RUNBOOK.glob("*.md"))
ONLY_PROMETHEUS = "RequestsFailing"
_OURS = re.compile(
    r"^ *<!-- run by: tests/deploy/test_runbook\.py -->\n( *)```(sh|sql)\n(.*?)\n *```$", re.MULTILINE | re.DOTALL
)


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page that this module runs, in order."""
    text = (RUNBOOK / page).read_text(encoding="utf-8")
    return [code.replace(f"\n{indent}", "\n").strip() for indent, of, code in _OURS.findall(text) if of == language]


def run(code: str, folder: Path, **environment: str) -> str:
    """Paste a block into a shell with `receiver` and PostgreSQL's programs; return its output."""
    places = [folder / "bin", Path(sys.executable).parent, find_binaries(), os.environ["PATH"]]
    path = os.pathsep.join(map(str, places))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RECEIVER_", "PG"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**inherited, "PATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, (code, done.stdout, done.stderr)
    return done.stdout


# --- Its form -------------------------------------------------------------------------------------------


def test_every_alarm_has_one_heading_on_one_page() -> None:
    headings = [heading for page in PAGES for heading in re.findall(r"^### (\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(headings) == sorted([*(alarm.heading for alarm in Alarm), ONLY_PROMETHEUS])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_alarm_says_what_it_means_where_to_look_and_what_to_do(page: Path) -> None:
    sections = re.split(r"^##+ ", page.read_text(), flags=re.MULTILINE)
    for section in sections:
        heading, _, body = section.partition("\n")
        if heading in {alarm.heading for alarm in Alarm} - {Alarm.PLATFORM_SILENT.heading, "CertificateEndsNow"}:
            places = [body.find(f"\n{word}:") for word in ("Look", "Do", "After")]
            assert -1 not in places, heading
            assert places == sorted(places), heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_bytes()) <= 9000


def test_first_page_names_every_alarm_beside_the_page_that_has_it() -> None:
    rows = re.findall(r"^\| \[.*?\]\((\w+\.md)\) \| ([\w, ]+?) \|", (RUNBOOK / "index.md").read_text(), re.MULTILINE)
    for page, names in rows:
        found = re.findall(r"^### (\w+)$", (RUNBOOK / page).read_text(), re.MULTILINE)
        assert sorted(found) == sorted(names.split(", "))
    assert sum(len(names.split(", ")) for _, names in rows) == len(Alarm) + 1


# --- Its commands ---------------------------------------------------------------------------------------


def test_log_is_searched_by_its_fields(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"level": "info", "event": "request", "route": "/push", "http_status": 200, "push_id": "p-1"},
        {
            "level": "info",
            "event": "request",
            "route": "/api/v1/messages",
            "http_status": 503,
            "error": "DatabaseUnavailable",
        },
        {"level": "error", "event": "projection failed", "reason": "gone"},
    ]
    (tmp_path / "log").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "Stopped receiver.service.\n")
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/journalctl"
    stand_in.write_text(f"#!/bin/sh\ncat {tmp_path}/log\n")
    stand_in.chmod(0o755)
    wrong, failed, push = blocks("alarms.md", "sh")
    assert json.loads(run(wrong, tmp_path)) == lines[2]
    assert run(failed, tmp_path).split() == ["1", "503", "/api/v1/messages"]
    assert json.loads(run(push, tmp_path, PUSH_ID="p-1")) == lines[0]


def test_spool_of_a_lost_node_is_saved_by_another(tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    with ServeProcess(tmp_path / "lost", "postgresql+psycopg://receiver@127.0.0.1:1/away", patient=False) as lost:
        pushed = lost.push(b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+17%3A00%3A00")
        assert pushed.headers["X-Push-Outcome"] == "spooled"
        _, worker = lost.await_worker()
        lost.stop(signal.SIGKILL)
        lost.await_gone([worker])
    settings = {"RECEIVER_DATA_DIR": str(tmp_path / "other"), "RECEIVER_PUSH_TOKENS": f"default:{SECRET}"}
    run("receiver db upgrade", tmp_path, **settings)
    said = []
    for page in ("machine.md", "backup.md"):
        commands = [code for code in blocks(page, "sh") if "spool drain" in code]
        commands = [re.sub(r"(--from) (/\S+)", rf"\1 {tmp_path}/lost", command) for command in commands]
        said += [run(command, tmp_path, **settings) for command in commands]
    assert said == ["1 records saved\n", "0 records saved\n", "0 records saved\n"]
    assert "accepted" in run("receiver pushes list", tmp_path, **settings)


def test_a_locked_out_administrator_gets_in_again(tmp_path: Path) -> None:
    settings = {"RECEIVER_DATA_DIR": str(tmp_path / "var"), "RECEIVER_PUSH_TOKENS": f"default:{SECRET}"}
    make = "receiver db upgrade; echo 'a long pass phrase 4711' | receiver users create li.wei --role admin"
    run(f"{make}; receiver users disable li.wei", tmp_path, **settings)
    with closing(sqlite3.connect(tmp_path / "var/receiver.db")) as database, database:
        database.execute("UPDATE users SET totp_secret = 'on the lost phone'")
    (commands,) = blocks("secrets.md", "sh")
    run(commands, tmp_path, **settings)
    (user,) = json.loads(run("receiver users list --json", tmp_path, **settings))
    assert (user["name"], user["totp"], user["disabled_at"]) == ("li.wei", False, None)


def test_webhook_is_looked_at_and_sent_what_it_missed(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Accepting) as endpoint:
        Thread(target=endpoint.serve_forever, daemon=True).start()
        settings = {
            "RECEIVER_DATA_DIR": str(tmp_path / "var"),
            "RECEIVER_PUSH_TOKENS": f"default:{SECRET}",
            "RECEIVER_WEBHOOKS_ALLOW": "127.0.0.0/8",
        }
        url = f"http://127.0.0.1:{endpoint.server_port}/"
        add = f"receiver db upgrade; receiver webhooks add shop {url} --format webhooks; receiver webhooks pause shop"
        run(add, tmp_path, **settings)
        said = [run(code, tmp_path, **settings) for code in blocks("webhooks.md", "sh")]
        listed = json.loads(run("receiver webhooks list --json", tmp_path, **settings))
        endpoint.shutdown()
    assert len(said) == 4
    assert "204" in said[0]
    assert [each["state"] for each in listed] != ["paused"]


class _Accepting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()


# --- Its statements -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: roles are of a whole one."""
    with PostgresServer(durable=False) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE receiver LOGIN")
        yield server


def test_dump_is_restored_beside_the_damaged_database_and_its_ids_move_on(
    server: PostgresServer, tmp_path: Path
) -> None:
    ServeProcess(tmp_path, server.create_database("receiver")).upgrade()
    address = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    run("pg_dump --format=custom --file=dump receiver", tmp_path, **address)
    (restore,) = [code for code in blocks("backup.md", "sh") if "pg_restore" in code]
    run(restore, tmp_path, FILE="dump", **address)
    (advance,) = blocks("backup.md", "sql")
    with psycopg.connect(server.url("receiver2"), autocommit=True) as connection:
        moved = connection.execute(advance.encode()).fetchall()
        (owner,) = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'messages'").fetchone() or (
            "",
        )
    assert len(moved) == 3
    assert all(value > 10_000_000_000 for (value,) in moved)
    assert owner == "receiver"


def test_statements_of_the_pages_are_what_postgresql_takes(server: PostgresServer) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        shown = [connection.execute(statement.encode()).fetchall() for statement in blocks("database.md", "sql")]
        assert [len(rows) > 0 for rows in shown] == [False, True, False]  # this query itself is a transaction
        (roles,) = blocks("secrets.md", "sql")
        connection.execute(roles.encode())
        connection.execute("SET SESSION AUTHORIZATION receiver_b")
        assert connection.execute("SELECT pg_has_role('receiver', 'USAGE')").fetchone() == (True,)


def test_the_chains_end_is_put_back(postgres_runtime: Runtime) -> None:
    note(postgres_runtime, 4)
    tamper(postgres_runtime, "DELETE FROM audit_chain")
    assert "is missing" in str(fault(postgres_runtime))
    (mend,) = blocks("audit.md", "sql")
    postgres_runtime.database.write(lambda connection: connection.execute(sa.text(mend)))
    assert fault(postgres_runtime) is None
