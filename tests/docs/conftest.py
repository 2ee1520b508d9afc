"""What the tests of pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import made_database
from tests.docs.run import Shared
from tests.harness.preloaded import preloaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture(scope="session")
def shared(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    """Return what pages share; PostgreSQL is started for a page that asks for it."""

    def make_postgresql() -> AbstractContextManager[str]:
        template = request.getfixturevalue("postgres_template")
        return made_database(request.getfixturevalue("postgres_url"), template)

    with preloaded(tmp_path_factory.mktemp("preloaded")) as receiver:
        yield Shared(receiver, sqlite_template, make_postgresql)
