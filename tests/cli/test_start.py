"""A command imports what it needs, so that it starts at once."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import sys
from receiver.cli import main
sys.argv = ["receiver", *sys.argv[1:]]
try:
    main()
finally:
    names = [name for name in sys.modules if name.startswith(("receiver.", "sqlalchemy.dialects.")) or "." not in name]
    print(*names, file=sys.stderr)
"""
_OF_LOGS = {"structlog", "rich"}
_OF_CONSOLE_AND_API = {
    "receiver.app",
    "receiver.web.api",
    "receiver.web.console",
    "alembic",
    "apispec",
    "babel",
    "markdown_it",
    "marshmallow",
    "psycopg",
    "sqlalchemy.dialects.postgresql",
    "wtforms",
    "xlsxwriter",
}
_OF_A_SERVER = _OF_CONSOLE_AND_API | {
    "receiver.runtime",
    "receiver.web",
    "flask",
    "gunicorn",
    "httpcore2",
    "opentelemetry",
    "prometheus_client",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data directory has a database."""
    place = tmp_path_factory.mktemp("start")
    _run("db upgrade", place)
    return place


def _run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *command.split()],
        cwd=place,
        env={"PATH": os.environ["PATH"], "RECEIVER_DATA_DIR": str(place / "var"), "RECEIVER_BIND": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "without", "said"),
    [
        ("--help", _OF_A_SERVER | _OF_LOGS | {"sqlalchemy"}, "Maintenance"),
        ("push-url", _OF_A_SERVER | _OF_LOGS | {"sqlalchemy"}, "/push/"),
        ("keys list --json", _OF_A_SERVER | _OF_LOGS, "[]"),
        ("status", _OF_A_SERVER | _OF_LOGS, "database: ok"),
        ("serve --help", _OF_CONSOLE_AND_API | _OF_LOGS, "Run the server"),
    ],
)
def test_command_imports_nothing_that_it_does_not_need(command: str, without: set[str], said: str, place: Path) -> None:
    ran = _run(command, place)
    assert said in ran.stdout, ran.stderr
    imported = set(ran.stderr.splitlines()[-1].split())
    assert {"click", "receiver.core"} <= imported
    assert imported & without == set()
