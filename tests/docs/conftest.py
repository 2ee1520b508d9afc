"""What the tests of pages share."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.docs.run import Shared
from tests.harness.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.preloaded import Preloaded


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, sqlite_template: Path, preloaded: Preloaded) -> Shared:
    """Return what pages share; PostgreSQL is started for a page that asks for it."""

    @contextmanager
    def make_postgresql() -> Iterator[str]:
        # Its own for each page: pages run at once.
        server, template = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
        with closing(Databases(server, template)) as databases, databases.lend() as url:
            yield url

    return Shared(preloaded.program, sqlite_template, make_postgresql)
