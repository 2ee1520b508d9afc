"""`kill -HUP` with other settings than those of the start: it replaces the workers, and ends nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.server.test_serve import RECEIPT
from tests.web.test_listeners import Inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[ServeProcess, Inside]]:
    """A server whose inside listener stands in `.env`, and that listener."""
    port = free_port()
    (tmp_path / ".env").write_text(f"RECEIVER_INTERNAL_BIND=127.0.0.1:{port}\n")
    with ServeProcess(tmp_path) as process:
        yield process, Inside(process, port)


def reload(process: ServeProcess) -> None:
    master, worker = process.await_worker()
    os.kill(master, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while process.await_worker()[1] == worker:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.await_gone([worker])


def warned(process: ServeProcess) -> list[str]:
    """What it says of its settings."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line.get("setting") or line["reason"] for line in lines if line["logger"] == "receiver.server"]


def test_addresses_that_are_taken_leave_it_at_the_old_ones_and_it_says_so(house: tuple[ServeProcess, Inside]) -> None:
    process, inside = house
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (process.data_dir / ".env").write_text(
            f"RECEIVER_INTERNAL_BIND={address}\nRECEIVER_SEND_PROXY_BIND=192.0.2.1:81\n"
        )
        reload(process)
        assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
        assert inside.request("GET", "/readyz").status == 200
    assert warned(process) == ["RECEIVER_INTERNAL_BIND", "RECEIVER_SEND_PROXY_BIND"]


def test_settings_that_do_not_fit_any_more_leave_it_with_the_old_ones(house: tuple[ServeProcess, Inside]) -> None:
    process, inside = house
    (process.data_dir / ".env").write_text("RECEIVER_INTERNAL_BIND=nowhere\nRECEIVER_TIMEZONE=Mars\n")
    reload(process)
    assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
    assert inside.request("GET", "/readyz").status == 200
    (told,) = warned(process)
    assert "RECEIVER_INTERNAL_BIND" in told
    assert "RECEIVER_TIMEZONE" in told
