"""Migrations that come after this program's: made by a test, so that the way of an upgrade is proved by more than one.

`Migrations(tmp_path)` has the program take its own directory in; `add` appends one. A command that runs as a process of
its own takes it in too: `command`.
"""

from __future__ import annotations

import sys
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from receiver.db import migrate, version

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_SCRIPT = """
import sqlalchemy as sa
from alembic import op

from receiver.db.migration_ops import create_index

revision, down_revision, branch_labels, depends_on = "{revision}", "{before}", None, None


def upgrade():
{body}
"""
# The program, of the version to which the last of these migrations leads.
_LATER_PROGRAM = """
import sys
from pathlib import Path

from receiver.cli import main
from receiver.db import migrate, version

migrate.VERSION_DIRECTORIES.append(Path(sys.argv.pop(1)))
version.VERSION = sys.argv.pop(1)
main()
"""


class Migrations:
    """A directory of migrations that follow this program's."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(migrate, "VERSION_DIRECTORIES", [*migrate.VERSION_DIRECTORIES, directory])

    def add(self, body: str) -> str:
        """Append a migration, and make it what the program was written for; return its number."""
        before = version.VERSION
        revision = f"{int(before) + 1:04}"
        script = _SCRIPT.format(revision=revision, before=before, body=indent(dedent(body).strip(), "    "))
        (self._directory / f"m{revision}.py").write_text(script)
        self._monkeypatch.setattr(version, "VERSION", revision)
        return revision

    def command(self, *arguments: str) -> list[str]:
        """Return the `receiver` command of a program that has these migrations too."""
        return [sys.executable, "-c", _LATER_PROGRAM, str(self._directory), version.VERSION, *arguments]
