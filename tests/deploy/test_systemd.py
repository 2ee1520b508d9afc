"""What systemd hears of `serve`, and the units that it is given."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from receiver.cli import cli
from receiver.config import SETTINGS
from receiver.server import Server
from receiver.server.arbiter import ReceiverArbiter
from tests.conftest import make_settings
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
RECEIPT = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"


class Systemd:
    """The end of the notify socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0") if address.startswith("@") else address)

    def close(self) -> None:
        self._socket.close()

    def hear(self, seconds: float = 40) -> dict[str, str]:
        """The next datagram, as names and values."""
        self._socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def hear_past_watchdog(self) -> dict[str, str]:
        """The next datagram that says more than that it is alive."""
        while (heard := self.hear()) == {"WATCHDOG": "1"}:
            pass
        return heard

    def heard_nothing(self) -> bool:
        """Whether nothing waits to be heard."""
        try:
            self.hear(0.01)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """One with an address in the abstract namespace."""
    end = Systemd(f"@receiver-test-{os.getpid()}")
    yield end
    end.close()


def test_systemd_hears_of_the_start_a_reload_and_the_stop(systemd: Systemd, tmp_path: Path) -> None:
    process = ServeProcess(tmp_path, environment={"NOTIFY_SOCKET": systemd.address})
    with process:
        assert systemd.hear() == {"READY": "1", "WATCHDOG": "1", "STATUS": "accepting pushes"}
        assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
        master, first = process.await_worker()
        os.kill(master, signal.SIGHUP)
        assert systemd.hear_past_watchdog().keys() == {"RELOADING", "MONOTONIC_USEC", "STATUS"}
        assert systemd.hear_past_watchdog()["READY"] == "1"
        assert process.await_worker()[1] != first
        assert process.push(RECEIPT).headers["X-Push-Outcome"] == "accepted"
        process.stop()
        assert systemd.hear_past_watchdog()["STOPPING"] == "1"
    assert systemd.heard_nothing()


def test_signs_of_life_end_when_no_worker_gives_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    master = ReceiverArbiter(Server(make_settings("sqlite://", tmp_path), workers=2))
    booting = SimpleNamespace(tmp=SimpleNamespace(last_update=lambda: 1_795_000_000.0))
    serving = SimpleNamespace(tmp=SimpleNamespace(last_update=lambda: 1001.0))

    master.WORKERS = {1: booting}
    master.reap_workers()
    assert systemd.heard_nothing(), "a worker that has not begun takes no push"
    master.WORKERS = {1: booting, 2: serving}
    now = 1001.0
    master.reap_workers()
    assert systemd.hear()["READY"] == "1"
    now = 1009.0
    master.reap_workers()
    assert systemd.hear() == {"WATCHDOG": "1"}
    now = 1012.0
    master.reap_workers()
    now = 1020.0
    master.reap_workers()
    assert systemd.heard_nothing(), "the one that served hangs, the other never began"
    systemd.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with a program that is there."""
    directory = tmp_path_factory.mktemp("units")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/receiver/bin/receiver", "/bin/true")
        assert all((ROOT / script).exists() for script in re.findall(r"/opt/receiver/(deploy/\S+)", text))
        (directory / unit.name.replace("@.", "@alarms.")).write_text(text)
    return directory


@needs_systemd
def test_units_are_as_systemd_wants_them(installed: Path) -> None:
    units = sorted(str(unit) for unit in installed.iterdir())
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
def test_services_may_little(installed: Path) -> None:
    services = sorted(unit.name for unit in installed.glob("*.service"))
    assert services == [
        "receiver-backup.service",
        "receiver-prune.service",
        "receiver-run@alarms.service",
        "receiver.service",
    ]
    for service in services:
        judged = ["systemd-analyze", "security", "--offline=true", "--threshold=14", str(installed / service)]
        scored = subprocess.run(judged, capture_output=True, text=True, check=False)
        assert scored.returncode == 0, scored.stdout
        assert re.search(rf"exposure level for {service}: 1\.\d OK", scored.stdout)


def test_units_share_one_sandbox_and_the_settings() -> None:
    parts = [unit.read_text() for unit in UNITS.glob("*.service")]
    sandboxes = {part[part.index("User=") :].partition("\n\n[Install]")[0].strip() for part in parts}
    assert (len(parts) > 1, len(sandboxes)) == (True, 1)


def test_every_timer_starts_a_service_that_is_a_command_of_ours() -> None:
    for timer in UNITS.glob("*.timer"):
        unit = re.search(r"^Unit=(\S+)$", timer.read_text(), re.MULTILINE)[1]
        name, _, instance = unit.removesuffix(".service").partition("@")
        service = (UNITS / (f"{name}@.service" if instance else unit)).read_text()
        command = re.search(r"^ExecStart=/opt/receiver/bin/receiver (.+)$", service, re.MULTILINE)[1]
        words = command.replace("%i", instance).split()
        shown = CliRunner().invoke(cli, [*(word for word in words if not word.startswith("/")), "--help"])
        assert shown.exit_code == 0, (timer.name, shown.output)


def test_socket_listens_where_receiver_does_by_default() -> None:
    socket_unit = (UNITS / "receiver.socket").read_text()
    assert f"\nListenStream={SETTINGS['bind'].default}\n" in socket_unit
