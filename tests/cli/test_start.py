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
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("--help", {"sqlalchemy", "structlog", "rich", "flask", "httpcore2", "babel", "prometheus_client"}),
        ("push-url", {"sqlalchemy", "structlog", "rich", "flask", "httpcore2", "babel"}),
        ("keys list --help", {"structlog", "rich", "flask", "httpcore2", "babel", "gunicorn"}),
    ],
)
def test_command_imports_nothing_that_it_does_not_need(command: str, without: set[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *command.split()],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "RECEIVER_DATA_DIR": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    imported = set(ran.stderr.splitlines()[-1].split())
    assert "click" in imported
    assert imported & without == set()
