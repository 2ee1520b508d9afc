"""The demo: a receiver and a simulator with thirty days of messages, in a temporary directory."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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
_SCOPES = ("read", "messages:write", "messages:send", "reports", "export", "pushes", "pii")
_RATES = {"failures": 0.04, "replies": 0.05, "lost": 0.02, "flips": 0.005, "early": 0.05, "duplicates": 0.05}
_HOW = PushFaults(**_RATES, gb18030=0.05, reorder=True, max_delay=timedelta(minutes=20), hurry=True)
_LIVE_HOW = PushFaults(failures=0.1, replies=0.5)
_TOUR = """{sent:,} messages, {acked:,} pushes acknowledged

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

  Ctrl-C stops it and removes all files."""


@contextmanager
def run_demo(count: int, port: int) -> Iterator[str]:
    """Run a receiver that a simulator has pushed so many messages to, and yield what to try. Raises ReceiverError."""
    with tempfile.TemporaryDirectory(prefix="receiver-demo-") as directory:
        port, platform_port = _free_port(port), _free_port(8100)
        base = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECEIVER_")} | {
            "RECEIVER_DATA_DIR": directory,
            "RECEIVER_DATABASE_URL": sqlite_url(Path(directory) / "receiver.db"),
            "RECEIVER_BIND": f"127.0.0.1:{port}",
            "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
            "RECEIVER_PLATFORM_CREDENTIALS": "default:demo:demo",
            "RECEIVER_CONSOLE_TOTP": "optional",
        }
        with _serving(environment, port):
            scopes = [part for scope in _SCOPES for part in ("--scope", scope)]
            key = _run(environment, "keys", "create", "demo", *scopes).splitlines()[-1]
            password = secrets.token_urlsafe(9)
            _run(environment, "users", "create", "demo", "--role", "admin", stdin=password)
            secret = (Path(directory) / PUSH_SECRET_FILE).read_text().strip().partition(":")[2]
            target = PushTarget(receipt_url=f"{base}/push/{secret}", reply_url=f"{base}/push/{secret}", retries=3)
            messages = generate_messages(count, _DAYS, _SEED, datetime.now(UTC))
            ReceiverApi(base, key).record(messages)  # as a shop would
            with Simulator(bind=("127.0.0.1", 0), rules=Rules(), how=_HOW, target=target, seed=_SEED) as filler:
                filler.add_messages(messages)
            told = _TOUR.format(base=base, key=key, password=password, count=count, **filler.ledger.summary())
            rules = Rules(one_a_minute=True, per_number_per_day=10)
            with Simulator(
                bind=("127.0.0.1", platform_port), rules=rules, how=_LIVE_HOW, target=target, seed=_SEED
            ) as simulator:
                yield told
                simulator.cancel()


def _free_port(preferred: int) -> int:
    """Return the preferred port if it is free, else any free one."""
    with suppress(OSError), socket.create_server(("127.0.0.1", preferred)):
        return preferred
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free: int = probe.getsockname()[1]
        return free


@contextmanager
def _serving(environment: Mapping[str, str], port: int) -> Iterator[None]:
    log = Path(environment["RECEIVER_DATA_DIR"]) / "serve.log"
    with log.open("wb") as output:
        # In its own process group: Ctrl-C reaches this process only, which then stops the server cleanly.
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env=environment,
            cwd=log.parent,
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
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
