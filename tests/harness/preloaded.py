"""`receiver` that is loaded once: each command is a fork of a process that has imported everything.

Loading takes most of what a command takes, and pages of the documentation run a hundred of them. Run as a file, it
waits for commands at a socket; `CLIENT`, as a file, hands its arguments, environment, folder and streams to it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOT = Path(__file__).parents[2]
_LOADED = "loaded"

CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
server.sendall(call)
signal.signal(signal.SIGTERM, lambda *_: server.shutdown(socket.SHUT_WR))  # the command is asked to end
sys.exit(int(server.recv(4) or b"1"))
"""


@contextmanager
def preloaded(place: Path) -> Iterator[str]:
    """Load everything. Gives the text of a program that runs a command."""
    path = place / "receiver.socket"
    command = [sys.executable, "-P", __file__, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline().strip() == _LOADED
        try:
            yield CLIENT.format(python=sys.executable, path=str(path))
        finally:
            one.terminate()


def _serve(path: str) -> None:
    from receiver.cli import cli  # noqa: PLC0415  (only the process that waits for commands loads them)
    from tests.harness import patient  # noqa: PLC0415

    patient.be_patient()
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        cli.get_command(None, name)  # type: ignore[arg-type]
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
        arguments, environment, folder = json.loads(call)
        _run(arguments, environment, folder, streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)
    if caller.fileno() in select.select([ended, caller.fileno()], [], [])[0]:
        os.kill(process, signal.SIGTERM)
    _, status = os.waitpid(process, 0)
    with suppress(OSError):
        caller.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def _run(arguments: list[str], environment: Mapping[str, str], folder: str, streams: list[int]) -> NoReturn:
    from receiver.cli import main  # noqa: PLC0415

    code: object = 0
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[1:] = arguments
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (as an interpreter ends)
        traceback.print_exc()
        code = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(sys.argv[1])
