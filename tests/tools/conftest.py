"""Servers for the tools: one on each kind of database, filled once."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import made_database
from tests.harness.server import ServeProcess
from tests.tools.house import SETTINGS, House

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def embedded_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server on an embedded database."""
    with ServeProcess(tmp_path_factory.mktemp("embedded"), environment=SETTINGS) as process:
        house = House(process)
        house.fill()
        yield house


@pytest.fixture(scope="session")
def postgres_house(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[House]:
    """A server on PostgreSQL, and a role that may read the views."""
    role = f"reports_{uuid.uuid4().hex}"
    with made_database(postgres_url) as url:
        process = ServeProcess(tmp_path_factory.mktemp("postgres"), url, environment=SETTINGS)
        process.upgrade()
        made = process.run("db", "create-report-role", role)
        assert made.returncode == 0, made.stderr
        parts = urlsplit(url)
        password = made.stdout.splitlines()[-1]
        with process:
            house = House(process, f"postgresql://{role}:{password}@{parts.hostname}:{parts.port}{parts.path}")
            house.fill()
            yield house
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="session", params=["embedded_house", "postgres_house"], ids=["embedded", "postgresql"])
def house(request: pytest.FixtureRequest) -> House:
    """A server, once on each kind of database."""
    filled: House = request.getfixturevalue(request.param)
    return filled
