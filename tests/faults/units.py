"""Processes that are looked after as systemd would: started anew where they end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.usage import is_running, list_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_STOP_SECONDS = 40
_LOOK_SECONDS = 0.05


@dataclass(kw_only=True)
class Unit:
    """One service: its processes are one group, and what it says goes to one file."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    restart_seconds: float = 1.0  # systemd's RestartSec
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _wanted: threading.Event = field(default_factory=threading.Event, init=False)
    _keeper: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and start it again whenever it ends unasked."""
        self._wanted.set()
        self._launch()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait; a second time does nothing. What is left of its group then is killed, as systemd does."""
        self._wanted.clear()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        if self._process is None:
            return
        self._process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._kill_group()
        self._process = None

    def kill(self) -> None:
        """End all its processes by SIGKILL; the keeper starts it again."""
        self._kill_group()

    def signal(self, how: signal.Signals) -> None:
        """Send a signal to its main process."""
        if self._process is not None:
            self._process.send_signal(how)

    def tree(self) -> list[int]:
        """List its processes."""
        return [] if self._process is None else list_tree(self._process.pid)

    def said(self) -> str:
        """Give the end of what it said."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=dict(self.environment), stdout=log, stderr=log, cwd="/", process_group=0
            )

    def _keep(self) -> None:
        while self._wanted.is_set():
            if self._process is not None and self._process.poll() is not None:
                self._kill_group()
                time.sleep(self.restart_seconds)
                if self._wanted.is_set():
                    self._launch()
            time.sleep(_LOOK_SECONDS)

    def _kill_group(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def end(pid: int, seconds: float) -> None:
    """End a process that is nobody's child here: asked first, killed where that takes too long."""
    for how, patience in ((signal.SIGINT, seconds), (signal.SIGKILL, seconds)):
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        deadline = time.monotonic() + patience
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
