"""The parts that tests share: both real databases, a runtime and a client on each."""

from __future__ import annotations

import gc
import io
import logging
import os
import shutil
import time
import uuid
from base64 import b64encode
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import hypothesis
import psycopg
import pytest
from argon2 import PasswordHasher
from flask import Flask

from receiver.app import create_app
from receiver.auth import changes, passwords
from receiver.auth.api_keys import Scope
from receiver.config import Settings
from receiver.db import migrate
from receiver.db.encryption.ciphers import Keyring
from receiver.db.engine import Database
from receiver.maintenance.rekey import encrypt
from receiver.observability import configure_logging
from receiver.runtime import Runtime
from tests.harness.browser import browser, open_context, open_page
from tests.harness.compiled import share_compiled
from tests.harness.databases import Databases
from tests.harness.described import DescribedClient
from tests.harness.leaks import OTHER_SECRET, SECRET, leaks
from tests.harness.patient import DISK_WITH_ROOM, PATIENCE_SECONDS, PATIENCES
from tests.harness.postgres import PostgresServer
from tests.harness.preloaded import Preloaded
from tests.harness.running import pytest_collection_modifyitems, pytest_report_header, pytest_terminal_summary
from tests.harness.server import ServeProcess

# The browser's fixtures stand here, so that one browser serves every module of a run; pytest looks for its hooks here.
__all__ = [
    "OTHER_SECRET",
    "SECRET",
    "browser",
    "open_context",
    "open_page",
    "pytest_collection_modifyitems",
    "pytest_report_header",
    "pytest_terminal_summary",
]

# On a busy machine an example takes as long as it takes. Under CI too the examples are those of `--hypothesis-seed`.
hypothesis.settings.register_profile("busy", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.load_profile("busy")

# Of every application that a test makes, so that no test has to ask for it.
Flask.test_client_class = DescribedClient
share_compiled()

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from flask.testing import FlaskClient

# Set, every database that a test begins with is encrypted.
ENCRYPTION_KEYS = (("test", bytes(range(32))),) if "RECEIVER_TEST_ENCRYPTED" in os.environ else ()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let nothing be skipped where everything is installed: there, what a test lacks is a fault of that machine."""
    report = yield
    if report.skipped and "CI" in os.environ:
        report.outcome = "failed"
        report.longrepr = f"skipped, which nothing is under CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector what stays for the whole run: thousands of tests and all that they import."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_log_line_leaks() -> Iterator[None]:
    """Keep every log line of the run, and look them through at its end."""
    configure_logging()
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [handler]  # what another thread writes a moment later would stand between pytest's own lines
    yield
    assert leaks(kept.getvalue()) == []


@pytest.fixture(scope="session", autouse=True)
def _patient_intake() -> Iterator[None]:
    """Let what a test pushes or records reach the database, however busy the machine is, and not the spool."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in PATIENCES:
            patch.setattr(module, name, PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """Hash passwords quickly: what they are worth, tests/auth asks of a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(scope="session", autouse=True)
def _disk_with_room() -> Iterator[None]:
    """Keep the fill level of the machine's disk out of every verdict; a test of a full disk sets its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: DISK_WITH_ROOM)
        yield


@pytest.fixture(autouse=True)
def _environment_of_the_run() -> Iterator[None]:
    """Undo what libraries set in the environment: a command with another is no fork of what is preloaded."""
    before = dict(os.environ)
    yield
    for name in (os.environ.keys() | before.keys()) - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@pytest.fixture(scope="session", autouse=True)
def preloaded() -> Iterator[Preloaded]:
    """What the commands of a run are forks of."""
    with Preloaded() as loaded, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServeProcess, "preloaded", loaded)
        yield loaded


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server's maintenance database."""
    if given := os.environ.get("RECEIVER_TEST_DATABASE_URL"):
        yield given
        return
    with PostgresServer(durable=False) as server:
        yield server.url()


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The name of a PostgreSQL database whose schema is up to date, to make others from."""
    with made_database(postgres_url) as url:
        _upgrade(url)
        yield url.rpartition("/")[2]


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str, postgres_template: str) -> Iterator[Databases]:
    """PostgreSQL databases whose schema is up to date."""
    databases = Databases(postgres_url, postgres_template)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded database whose schema is up to date, to make others from."""
    path = tmp_path_factory.mktemp("template") / "receiver.db"
    _upgrade(f"sqlite:///{path}")
    return path


if ENCRYPTION_KEYS:  # of the commands that tests run
    os.environ["RECEIVER_ENCRYPTION_KEYS"] = ",".join(
        f"{name}:{b64encode(key).decode()}" for name, key in ENCRYPTION_KEYS
    )


def _upgrade(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    if ENCRYPTION_KEYS:
        encrypt(database, Keyring(ENCRYPTION_KEYS))
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database, once of each kind: empty, or with its schema for a test that has a runtime on it."""
    name = {"sqlite": "sqlite_database_url", "postgresql": "postgres_database_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def sqlite_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An embedded database, as `database_url` says."""
    path = tmp_path / "receiver.db"
    if _has_runtime(request):
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL database, as `database_url` says."""
    if _has_runtime(request):
        databases: Databases = request.getfixturevalue("postgres_databases")
        with databases.lend() as url:
            yield url
    else:
        with made_database(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture(scope="module")
def module_postgres_database_url(postgres_url: str) -> Iterator[str]:
    """An empty PostgreSQL database for the tests of one module."""
    with made_database(postgres_url) as url:
        yield url


def _has_runtime(request: pytest.FixtureRequest) -> bool:
    return not {"make_runtime", "postgres_runtime"}.isdisjoint(request.fixturenames)


@contextmanager
def made_database(maintenance: str) -> Iterator[str]:
    """Make an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield f"{maintenance.rpartition('/')[0]}/{name}".replace("postgresql://", "postgresql+psycopg://")
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings with one account on that database."""
    return make_settings(database_url, tmp_path)


def make_settings(database_url: str, data_dir: Path, **changes: object) -> Settings:
    """Settings for a test; `changes` replaces fields."""
    values: dict[str, object] = {
        "data_dir": data_dir,
        "database_url": database_url,
        "push_tokens": (("default", SECRET),),
        "timezone": ZoneInfo("Asia/Shanghai"),
        "late_after": timedelta(seconds=60),
        "no_receipt_after": timedelta(hours=72),
        "encryption_keys": ENCRYPTION_KEYS,
        "metrics_allow": (),
    }
    return Settings(**values | changes)  # type: ignore[arg-type]


@pytest.fixture
def make_runtime(settings: Settings) -> Iterator[Callable[..., Runtime]]:
    """Make a runtime on the migrated database, with changed settings."""
    made: list[Runtime] = []

    def make(**changes: object) -> Runtime:
        values = {name: getattr(settings, name) for name in Settings.__slots__}
        runtime = Runtime(Settings(**values | changes))
        made.append(runtime)
        _start(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.stop()


def _start(runtime: Runtime) -> None:
    """Start a runtime, and let it reach its database: on a busy machine the first try takes a while."""
    runtime.start()
    deadline = time.monotonic() + 30
    while not runtime.availability.await_known(0.1) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime on the migrated database."""
    return make_runtime()


@pytest.fixture
def postgres_runtime(postgres_database_url: str, tmp_path: Path) -> Iterator[Runtime]:
    """A runtime on a migrated PostgreSQL database."""
    runtime = Runtime(make_settings(postgres_database_url, tmp_path))
    _start(runtime)
    yield runtime
    runtime.stop()


@pytest.fixture
def app(runtime: Runtime) -> Flask:
    """The application on that runtime."""
    return create_app(runtime)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application."""
    return app.test_client()


def make_key(runtime: Runtime, *scopes: Scope, accounts: tuple[str, ...] | None = None) -> str:
    """Make an API key and give its header value."""
    key = runtime.database.write(
        lambda connection: changes.create_key(
            connection,
            name=uuid.uuid4().hex,
            scopes=scopes or tuple(Scope),
            accounts=accounts,
            now=runtime.now(),
            expires_at=None,
        )
    )
    return f"Bearer {key}"


@pytest.fixture
def bearer(runtime: Runtime) -> dict[str, str]:
    """Headers with a key for everything."""
    return {"Authorization": make_key(runtime)}
