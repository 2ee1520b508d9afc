"""What the tests of pages share."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.docs.run import Shared
from tests.harness.databases import Databases
from tests.harness.preloaded import preloaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def shared(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    """Return what pages share; PostgreSQL is started for a page that asks for it."""

    @contextmanager
    def make_postgresql() -> Iterator[str]:
        # Its own for each page: pages run at once.
        server, template = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
        with closing(Databases(server, template)) as databases, databases.lend() as url:
            yield url

    with preloaded(tmp_path_factory.mktemp("preloaded")) as receiver:
        yield Shared(receiver, sqlite_template, make_postgresql)
