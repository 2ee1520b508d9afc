"""`receiver` that is loaded once: each command is a fork of a process that has imported everything.

Loading takes most of what a command takes, and a run of tests starts a thousand of them. Each is a process with an
identifier, signals and streams of its own. What the interpreter itself reads (its path, its locale, the time zone) is
that of the loaded one: a command that is to have another is started as a program.

Run as a file, it takes commands at a socket. `Preloaded.program`, as a file, hands its arguments, environment, folder
and streams to it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, Self

import receiver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = Path(__file__).parents[2]
_LOADED = "loaded"
_LOADED_LATE = ("alembic.command", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "tests.harness.patient")
_EACH_COMMANDS_OWN = ("RECEIVER_", "TEST_", "PYTEST_", "NOTIFY_SOCKET")  # of its environment; the rest is as loaded

_PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), True]).encode()
socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
server.sendall(call)
signal.signal(signal.SIGTERM, lambda *_: server.shutdown(socket.SHUT_WR))  # the command is asked to end
said = server.makefile("r").read().split()
sys.exit(int(said[1]) % 256 if len(said) > 1 else 1)
"""


class Preloaded:
    """A process that has loaded everything, from the first command to leaving the context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._place = tempfile.TemporaryDirectory(prefix="receiver-preloaded-")
        self._path = str(Path(self._place.name) / "socket")
        self._environment = _common(os.environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
        self._place.cleanup()

    @property
    def program(self) -> str:
        """The text of a program that runs a command and waits for its end."""
        self._load()
        return _PROGRAM.format(python=sys.executable, path=self._path)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with this environment may be a fork."""
        return _common(environment) == self._environment

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        streams: tuple[IO[bytes], IO[bytes], IO[bytes]],
        *,
        patient: bool,
    ) -> Command:
        """Start a command on these three streams. Raises RuntimeError where no command can be started any more."""
        self._load()
        call = json.dumps([list(arguments), dict(environment), str(folder), patient]).encode()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        socket.send_fds(connection, [len(call).to_bytes(4, "big")], [stream.fileno() for stream in streams])
        connection.sendall(call)
        return Command(connection)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: str | None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises subprocess.TimeoutExpired once it took so long, and ends it."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            command = self.start(arguments, environment, folder, (given, out, err), patient=False)
            try:
                code = command.wait(seconds)
            except subprocess.TimeoutExpired:
                command.send_signal(signal.SIGKILL)
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read().decode(), err.read().decode())

    def _load(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, "-P", __file__, self._path]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == _LOADED


class Command:
    """A command that runs, with what tests use of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._said = b""
        self.returncode: int | None = None
        while b"\n" not in self._said:
            self._hear(None)
        self.pid = int(self._said.split()[0])

    def poll(self) -> int | None:
        """Return how it ended, as `Popen` has it; None: it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended. Raises subprocess.TimeoutExpired where it runs longer."""
        if self.returncode is None:
            while self._said.count(b"\n") < 2:
                self._hear(timeout)
            self.returncode = int(self._said.split()[1])
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; once it has ended, nothing."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _hear(self, timeout: float | None) -> None:
        if not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("receiver", timeout or 0)
        heard = self._connection.recv(64)
        if not heard:
            raise RuntimeError("what starts commands has ended")
        self._said += heard


def _common(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_EACH_COMMANDS_OWN)}


def _serve(path: str) -> None:
    for module in pkgutil.walk_packages(receiver.__path__, "receiver."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _LOADED_LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)  # not SIG_IGN: what they took would count nowhere
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print(_LOADED, flush=True)
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(caller)
        caller.close()


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(caller: socket.socket) -> NoReturn:
    """Run one command, and end it if its caller has ended."""
    head, streams, _, _ = socket.recv_fds(caller, 4, 3)
    call = caller.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
    process = os.fork()
    if process == 0:
        caller.close()
        _run(json.loads(call), streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)
    caller.sendall(b"%d\n" % process)
    if caller.fileno() in select.select([ended, caller.fileno()], [], [])[0]:
        os.kill(process, signal.SIGTERM)
    _, status = os.waitpid(process, 0)
    with suppress(OSError):
        caller.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(call: tuple[list[str], Mapping[str, str], str, bool], streams: list[int]) -> NoReturn:
    from receiver.cli import main  # noqa: PLC0415
    from tests.harness.patient import be_as_program  # noqa: PLC0415

    arguments, environment, folder, patient = call
    code: object = 0
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        be_as_program(patient=patient)
        sys.argv[1:] = arguments
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (as an interpreter ends)
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(sys.argv[1])
