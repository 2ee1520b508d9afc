"""Whether a push can be made durable is told as it is, whatever is broken."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.runtime import Runtime
from tests.conftest import SECRET, make_settings
from tests.intake.test_spool import without_locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

_NOWHERE = "postgresql+psycopg://receiver@127.0.0.1:1/receiver"
_RECEIPT = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17%3A00%3A00"


@pytest.fixture
def away(tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of an application whose database is away."""
    runtime = Runtime(make_settings(_NOWHERE, tmp_path, encryption_keys=()))
    runtime.start()
    yield create_app(runtime).test_client()
    runtime.stop()


def statuses(client: FlaskClient) -> tuple[int, int]:
    return client.get("/readyz").status_code, client.post(f"/push/{SECRET}", data=_RECEIPT).status_code


def test_ready_as_long_as_the_spool_takes_pushes(away: FlaskClient) -> None:
    assert statuses(away) == (200, 200)


def test_not_ready_where_the_spool_cannot_be_locked(away: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", without_locks)
    assert statuses(away) == (503, 503)


def test_not_ready_where_the_spool_is_no_directory(away: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    assert statuses(away) == (503, 503)


def test_not_ready_where_the_spool_cannot_be_read(
    away: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert statuses(away) == (200, 200)

    def fail(path: Path) -> Iterator[Path]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    really_scan = os.scandir

    def scan(path: object) -> object:
        return fail(tmp_path) if str(path) == str(tmp_path / "spool") else really_scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "iterdir", fail)
    monkeypatch.setattr(os, "scandir", scan)
    assert away.get("/readyz").status_code == 503


def test_not_ready_where_the_data_directory_has_gone(away: FlaskClient, tmp_path: Path) -> None:
    assert statuses(away) == (200, 200)
    tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-elsewhere"))
    assert statuses(away) == (503, 503)
