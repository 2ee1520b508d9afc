"""`demo`: a receiver and a simulator with thirty days of messages, in a temporary directory."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.config import PUSH_SECRET_FILE, sqlite_url
from receiver.core import ReceiverError
from receiver.simulator import PushFaults, PushTarget, Rules, Simulator
from receiver.simulator.check import ReceiverApi
from receiver.simulator.traffic import generate_messages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SEED = 540
_DAYS = 30
_STARTS_WITHIN_SECONDS = 15
_STOPS_WITHIN_SECONDS = 30
_HOW = PushFaults(
    failures=0.04,
    replies=0.05,
    lost=0.02,
    flips=0.005,
    early=0.05,
    duplicates=0.05,
    gb18030=0.05,
    reorder=True,
    max_delay=timedelta(minutes=20),
    hurry=True,
)
_LIVE_HOW = PushFaults(failures=0.1, replies=0.5)


@click.command()
@click.option("--messages", type=click.IntRange(1, 100_000), default=3000, show_default=True)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="If it is in use, another one."
)
def demo(messages: int, port: int) -> None:
    """Run a receiver and a simulated platform on this machine, with thirty days of messages.

    Prints what to try, and runs until Ctrl-C. Leaves no files.

    \b
    Example:
      receiver demo
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with tempfile.TemporaryDirectory(prefix="receiver-demo-") as directory:
        port = _free_port(port)
        platform_port = _free_port(8100)
        environment = _environment(Path(directory), port, platform_port)
        with _server(environment, port):
            key = _make_key(environment)
            password = _make_user(environment)
            account_and_secret = (Path(directory) / PUSH_SECRET_FILE).read_text().strip()
            push_url = f"http://127.0.0.1:{port}/push/{account_and_secret.partition(':')[2]}"
            target = PushTarget(receipt_url=push_url, reply_url=push_url, retries=3)
            _fill(messages, ReceiverApi(f"http://127.0.0.1:{port}", key), target)
            rules = Rules(one_a_minute=True, per_number_per_day=10)
            with Simulator(
                bind=("127.0.0.1", platform_port), rules=rules, how=_LIVE_HOW, target=target, seed=_SEED
            ) as simulator:
                _tour(port, key, password, messages)
                stopped.wait()
                simulator.cancel()
    print("\nstopped; all files are removed")


def _environment(directory: Path, port: int, platform_port: int) -> Mapping[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RECEIVER_")}
    return own | {
        "RECEIVER_DATA_DIR": str(directory),
        "RECEIVER_DATABASE_URL": sqlite_url(directory / "receiver.db"),
        "RECEIVER_BIND": f"127.0.0.1:{port}",
        "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
        "RECEIVER_PLATFORM_CREDENTIALS": "default:demo:demo",
        "RECEIVER_CONSOLE_TOTP": "optional",
    }


def _free_port(preferred: int) -> int:
    """Return the preferred port if it is free, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise ReceiverError("no port is free on 127.0.0.1")


@contextmanager
def _server(environment: Mapping[str, str], port: int) -> Iterator[None]:
    log = Path(environment["RECEIVER_DATA_DIR"]) / "serve.log"
    with log.open("wb") as output:
        # In its own process group: Ctrl-C reaches this process only, which then stops the server cleanly.
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env=environment,
            cwd=environment["RECEIVER_DATA_DIR"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").splitlines()[-1:]
                raise ReceiverError(f"the receiver did not start: {''.join(last)}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _make_key(environment: Mapping[str, str]) -> str:
    scopes = ("read", "messages:write", "messages:send", "reports", "export", "pushes", "pii")
    options = [part for scope in scopes for part in ("--scope", scope)]
    return _run(environment, "keys", "create", "demo", *options).splitlines()[-1]


def _make_user(environment: Mapping[str, str]) -> str:
    password = secrets.token_urlsafe(9)
    _run(environment, "users", "create", "demo", "--role", "admin", stdin=password)
    return password


def _run(environment: Mapping[str, str], *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(  # noqa: S603  (our own program)
        [sys.executable, "-m", "receiver", *arguments],
        env=environment,
        cwd=environment["RECEIVER_DATA_DIR"],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReceiverError(f"receiver {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _fill(count: int, api: ReceiverApi, target: PushTarget) -> None:
    """Generate thirty days of messages: record them as a shop would, push for them as the platform would."""
    print(f"generating {count:,} messages over {_DAYS} days …", flush=True)
    messages = generate_messages(count, _DAYS, _SEED, datetime.now(UTC))
    api.record(messages)
    with Simulator(bind=("127.0.0.1", 0), rules=Rules(), how=_HOW, target=target, seed=_SEED) as simulator:
        simulator.add_messages(messages)
    done = simulator.ledger.summary()
    print(f"{done['sent']:,} messages, {done['acked']:,} pushes acknowledged")


def _tour(port: int, key: str, password: str, count: int) -> None:
    base = f"http://127.0.0.1:{port}"
    print(
        f"""
  console         {base}/console   user demo, password {password}
  documentation   {base}/api/v1/docs
  health          {base}/readyz   {base}/metrics
  key             {key}

  the newest of {count:,} messages:
    curl -H 'Authorization: Bearer {key}' '{base}/api/v1/messages?limit=3'

  send a code, and see its receipt arrive a few seconds later:
    curl -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
      -d '{{"mobile": "15080921090", "template_id": "540", "code": "1234"}}' {base}/api/v1/verify-codes

  list the replies that opt out:
    curl -H 'Authorization: Bearer {key}' '{base}/api/v1/replies?opt_out=true&limit=3'

  Ctrl-C stops it and removes all files.""",
        flush=True,
    )
