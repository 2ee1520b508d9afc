"""Databases for the servers of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import made_database
from tests.docs.run import Databases

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest, sqlite_template: Path) -> Databases:
    """Databases to begin with; PostgreSQL is started for a page that asks for it."""

    def make_postgresql() -> AbstractContextManager[str]:
        template = request.getfixturevalue("postgres_template")
        return made_database(request.getfixturevalue("postgres_url"), template)

    return Databases(sqlite_template, make_postgresql)
