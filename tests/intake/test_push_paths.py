"""A path behind the right secret: taken whatever it is, and shown nowhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.core import Kind, Push
from receiver.intake.push_path import PushPath, read_push_path
from receiver.intake.spool_records import frame, read_file
from receiver.messages import queries
from tests.conftest import SECRET
from tests.harness.factories import make_push
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.runtime import Runtime

_RECEIPT = b"mobile=15080921090&taskid=1&status=1&receivetime=2019-07-23+17:00:00"
_PATIENCE_SECONDS = 10


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("push/S", PushPath("S", None, strayed=False)),
        ("push//S//", PushPath("S", None, strayed=False)),
        ("push/S/receipt", PushPath("S", Kind.RECEIPT, strayed=False)),
        ("push/S//RePly/", PushPath("S", Kind.REPLY, strayed=False)),
        ("push/S/receipts", PushPath("S", None, strayed=True)),
        ("push/S/sms/receipt", PushPath("S", Kind.RECEIPT, strayed=True)),
        ("push/S/receipt/sms", PushPath("S", None, strayed=True)),
        ("push/receipt", PushPath("receipt", None, strayed=False)),
        ("push/", PushPath("", None, strayed=False)),
        ("push///", PushPath("", None, strayed=False)),
        ("Push/S", PushPath("S", None, strayed=True)),
        ("PUSH//S/receipt", PushPath("S", Kind.RECEIPT, strayed=True)),
    ],
)
def test_path_of_a_push_is_read(written: str, expected: PushPath) -> None:
    assert read_push_path(written) == expected


def test_flag_of_a_path_outlives_spool_and_replay(runtime: Runtime, tmp_path: Path) -> None:
    answer = create_app(runtime).test_client().post(f"/push/{SECRET}/callback.php", data=_RECEIPT)
    assert answer.headers["X-Push-Outcome"] == "accepted"
    (row,) = runtime.ask(lambda connection: queries.list_pushes(connection, queries.Page(limit=1)))
    assert (row.as_push().endpoint, list(row.flags)) == (None, ["path"])
    assert runtime.admission.read_again(row.as_push()).flags == ("path",)
    file = tmp_path / "one.spool"
    file.write_bytes(frame(replace(make_push(), flags=("gb18030", "path")), None))
    (spooled,) = read_file(file)
    assert isinstance(spooled, Push)
    assert runtime.admission.read_spooled(spooled).flags == ("path",)


def test_no_log_and_no_metric_shows_a_path_behind_push(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        for path in ("/tail-of-a-path", "//tail-of-a-path?note=tail-of-a-path", "/receipt/tail-of-a-path"):
            for method in ("POST", "PUT"):  # down the lane, and by Flask
                assert process.request(method, process.target + path, _RECEIPT).status == 200
        assert process.request("POST", f"/push/wrong/{SECRET}/tail-of-a-path", _RECEIPT).status == 404
        metrics = process.request("GET", "/metrics").body.decode()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (log := process.log.read_text()).count('"event": "request"') < 7:
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file != process.log)
    for written in (log, metrics):
        assert "tail-of-a-path" not in written
        assert SECRET not in written
    assert stored.count(b"tail-of-a-path") == stored.count(b"note=tail-of-a-path")  # the query is kept as it came


@pytest.mark.parametrize("lane", ["on", "off"])
def test_right_secret_at_a_wrong_place_is_refused_like_a_wrong_one_and_shown_nowhere(tmp_path: Path, lane: str) -> None:
    targets = (f"/push?token={SECRET}", f"/push/?token={SECRET}", f"/Push/?{SECRET}", f"/PUSH/wrong/{SECRET}", "/Push")
    with ServeProcess(tmp_path, environment={"RECEIVER_PUSH_LANE": lane}) as process:
        for target in targets:
            for method in ("POST", "GET"):
                assert process.request(method, target, _RECEIPT).status == 404, target
        asked = len(targets) * 2
        metrics = process.request("GET", "/metrics").body.decode()
        assert f'receiver_push_refusals_total{{reason="secret"}} {asked}.0\n' in metrics
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (log := process.log.read_text()).count('"event": "request"') < asked:
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
    assert log.count('"event": "push refused"') == asked
    assert log.count('"route": "/push/***"') == asked
    assert SECRET not in log + metrics
