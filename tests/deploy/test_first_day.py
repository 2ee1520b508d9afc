"""The first day as its tutorial describes it, in its order, by its commands; the platform is the simulator."""

from __future__ import annotations

import os
import re
import select
import ssl
import subprocess
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import pytest

from receiver.simulator import PushFaults, PushTarget, Rules, Simulator
from tests.harness.nginx import Nginx, find_nginx
from tests.harness.platforms import APP_ID, APP_KEY
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = DEPLOY / "docs" / "tutorial" / "first-day.md"
OTHER = 13912345678  # another number than the page's
# What the page says to see after each of its commands.
SEEN = {
    "getent hosts sms.example.com": r"localhost",
    "curl --silent": r"\A404\n\Z",
    "receiver doctor --public-url": r"\A((ok  |note).*\n)+\Z",
    "echo 'default:APPID:APPKEY'": r"\A\Z",
    "systemctl restart receiver": r"\A\Z",
    "receiver balance": r"default +100 ",
    "systemctl enable --now receiver-balance.timer": r"\A\Z",
    "receiver push-url": r"\Ahttps://\S+/push/\S+\n\Z",
    "receiver watch": r"\A\Z",
    "receiver send 15080921090": r"\Asent: task \d+, 99 messages left\n",
    "receiver status": r"spool: empty\ndatabase: ok\nprojection: up to date\nlast push: 2",
    "receiver verify": r"\A(ok  .*\n)+\Z",
}


class FirstDay:
    """A machine as its installation leaves it: receiver behind nginx over HTTPS. The platform does not push yet."""

    def __init__(self, place: Path) -> None:
        self._credentials = place / "PLATFORM_CREDENTIALS"
        self._credentials.write_text("")
        self._platform_port = free_port()
        self._ends = ExitStack()
        (place / "receiver").mkdir()
        (place / "nginx").mkdir()
        self._process = ServeProcess(place / "receiver")
        ports = (self._process.port, self._process.port)
        self._nginx = Nginx(place=place / "nginx", receivers=ports, platform="127.0.0.0/8")
        self._url = f"https://127.0.0.1:{self._nginx.port}"
        self._trusted = place / "ca.pem"
        roots = self._nginx.trusted.get_ca_certs(binary_form=True)
        self._trusted.write_text("".join(ssl.DER_cert_to_PEM_cert(root) for root in roots))
        self._process.environment = {
            "RECEIVER_PUBLIC_URL": self._url,
            "RECEIVER_TRUSTED_PROXIES": "127.0.0.1",
            "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{self._platform_port}/smsApi",
            "RECEIVER_PLATFORM_CREDENTIALS_FILE": str(self._credentials),
        }

    def __enter__(self) -> Self:
        self._ends.enter_context(self._process)
        self._ends.enter_context(self._nginx)
        self._process.make_key("read")
        self._platform = self._stand_in(None)
        self._platform.__enter__()
        self._ends.callback(lambda: self._platform.__exit__(None, None, None))
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def paste(self, push_url: str) -> None:
        """Paste the URL into the platform's console, as the page says: one for receipts, one for replies."""
        self._platform.__exit__(None, None, None)
        self._platform = self._stand_in(
            PushTarget(receipt_url=f"{push_url}/receipt", reply_url=f"{push_url}/reply", tls=self._nginx.trusted)
        )
        self._platform.__enter__()

    def do(self, command: str) -> str:
        """Do what the page says; what is seen."""
        if command.startswith("systemctl enable"):
            assert (DEPLOY / "systemd" / command.rsplit(maxsplit=1)[-1]).exists()
            return ""
        if command == "systemctl restart receiver":
            self._process.stop()
            self._process.start()
            return ""
        done = subprocess.run(
            ["bash", "-euc", self._here(command)],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def watch(self, command: str) -> IO[str]:
        """Begin what the page says to leave running; what it will say."""
        watching = subprocess.Popen(
            self._here(command).split(), env=self._env, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert watching.stdout is not None
        self._ends.callback(watching.wait)
        self._ends.callback(watching.terminate)
        # It shows what comes once it has begun; until then, somebody else's pushes come.
        for number in range(100):
            self._process.push(b"mobile=%d&taskid=%d&status=1&receivetime=2026-11-23+09%%3A14%%3A03" % (OTHER, number))
            if select.select([watching.stdout], [], [], 0.5)[0]:
                return watching.stdout
        raise AssertionError("it shows nothing")

    @property
    def _env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        trust = {name: str(self._trusted) for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE")}
        return {**self._process.env, **trust, "PATH": path}

    def _here(self, command: str) -> str:
        """What stands on the page, with this machine's names and the stand-in's account."""
        for written, here in (
            ("https://sms.example.com", self._url),
            ("sms.example.com", "localhost"),
            ("APPID:APPKEY", f"{APP_ID}:{APP_KEY}"),
            ("/etc/receiver/secrets/PLATFORM_CREDENTIALS", str(self._credentials)),
        ):
            command = command.replace(written, here)
        return command

    def _stand_in(self, target: PushTarget | None) -> Simulator:
        return Simulator(
            bind=("127.0.0.1", self._platform_port),
            rules=Rules(credentials={APP_ID: APP_KEY}, templates=frozenset(["540"]), balance=100),
            how=PushFaults(failures=0, replies=1, hurry=True),
            target=target,
            seed=1,
        )


@pytest.fixture
def day(tmp_path: Path) -> Iterator[FirstDay]:
    with FirstDay(tmp_path) as first:
        yield first


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_nginx() is None, reason="needs nginx")
def test_first_day_goes_as_its_page_says(day: FirstDay) -> None:
    done = []
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for command in "".join(blocks).splitlines():
        (expected,) = [begins for begins in SEEN if command.startswith(begins)]
        done.append(expected)
        if expected == "receiver watch":
            watched = day.watch(command)
            continue
        seen = day.do(command)
        assert re.search(SEEN[expected], seen), (command, seen)
        if expected == "receiver push-url":
            day.paste(seen.strip())
        if expected.startswith("receiver send"):
            ours = (line.split(maxsplit=1)[1] for line in watched if str(OTHER)[-4:] not in line)
            lines = sorted(islice(ours, 2))
            assert re.match(r"accepted +receipt 150\*+1090 task \d+ delivered", lines[0]), lines
            assert re.match(r"accepted +reply 150\*+1090 task \d+ ", lines[1]), lines
    assert done == list(SEEN)
