"""`python -m tests.bench.start`: how soon commands end and `serve` acknowledges a push, beside commit 17a1081.

That commit is taken out of the history and run by the same interpreter. Each program has a folder with an upgraded
embedded database. They take turns, command by command. Of a command, its processor time is counted; of `serve`, the
time from its start to the first 200 for a push that is sent again each 5 ms, and the processor time of all its
processes until then.
"""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.contestants import ROOT
from tests.bench.older import COMMIT, take_older
from tests.bench.report import publish
from tests.harness.ports import free_port

_COMMANDS = ("--help", "push-url", "status", "keys list")
_PUSH = "mobile=15080921090&taskid=3313746&status=1&receivetime=2026-11-23+09%3A14%3A03"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_RETRY_SECONDS, _PATIENCE_SECONDS = 0.005, 60.0
_SERVED, _SERVED_CPU = "serve, until the first push is acknowledged", "its processor time until then"


@dataclass(frozen=True)
class _Installed:
    """One program with its data directory, and what was measured of it."""

    tree: Path
    place: Path
    taken: dict[str, list[float]] = field(default_factory=dict)  # seconds, by what was measured

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "receiver", *arguments]

    def environment(self, **settings: str) -> dict[str, str]:
        # With the bytecode of an installed program.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**inherited, "PYTHONPATH": str(self.tree), "RECEIVER_DATA_DIR": str(self.place / "var"), **settings}

    def run(self, arguments: str) -> float:
        """Run a command; return its processor time."""
        before = _children_seconds()
        subprocess.run(
            self.command(*arguments.split()),
            cwd=self.place,
            env=self.environment(RECEIVER_BIND="127.0.0.1:1"),  # where nothing listens
            capture_output=True,
            check=arguments != "status",  # which exits with 1 without a server
        )
        return _children_seconds() - before

    def serve(self) -> tuple[float, float]:
        """Start a server, push until the first acknowledgement, stop it; return both times until then."""
        settings = self.environment(RECEIVER_BIND=f"127.0.0.1:{free_port()}")
        ran = subprocess.run(
            self.command("push-url"), cwd=self.place, env=settings, capture_output=True, text=True, check=True
        )
        url = urlsplit(ran.stdout.split()[-1])
        begun = time.monotonic()
        server = subprocess.Popen(
            self.command("serve"), cwd=self.place, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _is_acknowledged(url.hostname or "", url.port or 0, url.path):
                if server.poll() is not None or time.monotonic() - begun > _PATIENCE_SECONDS:
                    raise RuntimeError(f"{self.tree}: no push was acknowledged")
                time.sleep(_RETRY_SECONDS)
            return time.monotonic() - begun, _family_seconds(server.pid)
        finally:
            server.terminate()
            server.wait(30)

    def note(self, name: str, seconds: float) -> None:
        self.taken.setdefault(name, []).append(seconds)


def main() -> None:
    """Measure by turns, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="receiver-start-") as folder:
        place = Path(folder)
        older = take_older(place / "tree").tree
        programs = []
        for name, tree in (("older", older), ("this", ROOT)):
            (place / name).mkdir()
            programs.append(_Installed(tree, place / name))
            for arguments in ("push-url", "db upgrade", *_COMMANDS):  # and so writes the bytecode
                programs[-1].run(arguments)
        for number in range(given.rounds):
            turns = programs[:: 1 if number % 2 else -1]  # neither is always the first
            for arguments in _COMMANDS:
                for program in turns:
                    program.note(arguments, program.run(arguments))
            for program in turns:
                seconds, cpu_seconds = program.serve()
                program.note(_SERVED, seconds)
                program.note(_SERVED_CPU, cpu_seconds)
    about = (
        f"Medians of {given.rounds} rounds, in milliseconds: processor time of each command, and of `serve` the time "
        f"from its start to the first 200 for a push that is sent again each {1000 * _RETRY_SECONDS:g} ms. Empty "
        "embedded database, nothing listens where `status` asks. Lowest and highest in brackets."
    )
    publish("start", f"Start, beside commit {COMMIT}", about, _table(*programs), version="")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family_seconds(pid: int) -> float:
    """Return the processor time of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in (str(pid), *children):
        ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _is_acknowledged(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("POST", path, _PUSH, _FORM)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _table(older: _Installed, this: _Installed) -> list[str]:
    lines = [f"| | {COMMIT} | this | ratio |", "|---|--:|--:|--:|"]
    for name, before in older.taken.items():
        now = this.taken[name]
        ratio = statistics.median(now) / statistics.median(before)
        shown = f"`{name}`" if name in _COMMANDS else name
        lines.append(f"| {shown} | {_cell(before)} | {_cell(now)} | {ratio:.2f} |")
    return lines


def _cell(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ({1000 * min(seconds):.0f}–{1000 * max(seconds):.0f})"


if __name__ == "__main__":
    main()
