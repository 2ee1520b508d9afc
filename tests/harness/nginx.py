"""A real nginx on the very files of deploy/nginx, with addresses and paths of the test's in place of theirs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trustme

from tests.harness.leaks import SECRET
from tests.harness.ports import free_ports
from tests.harness.programs import PLACES, require_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nginx"
NAME = "sms.example.com"
OTHER_NAME = "market.sms.example.com"  # of the second account
_START_SECONDS = 30
_MAIN = """
daemon off; pid {place}/nginx.pid; error_log {place}/error.log info; worker_processes 2; {user}
events {{ worker_connections 1024; }}
http {{
    access_log {place}/access.log; client_body_temp_path {place}/b; proxy_temp_path {place}/p;
    fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    gzip on;  # as Debian's has it
    include conf.d/*.conf;
}}
"""


def find_nginx() -> str | None:
    """Find the program, also where the search path leaves out what is for administrators."""
    return shutil.which("nginx", path=PLACES)


def find_nginxes() -> list[str]:
    """Find every version to try: the installed one, and that of RECEIVER_TEST_NGINX."""
    return [program for program in (find_nginx(), os.environ.get("RECEIVER_TEST_NGINX")) if program]


def lay_out(
    place: Path,
    replacements: Mapping[str, str],
    *,
    old_platform: bool = False,
    one_receiver: bool = False,
    accounts: bool = False,
) -> trustme.CA:
    """Write a configuration from the deployed files, and a certificate with its chain; give who has signed it.

    `replacements`: what stands in the files, and what is to stand there. Raises AssertionError for a text that is in
    none of them, so that no test goes on with an address that is not the test's.
    """
    for name in ("conf.d", "snippets", "tls", "log"):
        (place / name).mkdir()
    authority = trustme.CA()
    issuer = authority.create_child_ca()
    certificate = issuer.issue_cert(NAME, *[OTHER_NAME] * accounts, "127.0.0.1")
    certificate.private_key_pem.write_to_path(place / "tls" / "privkey.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(place / "tls" / "fullchain.pem", append=True)
    texts = {"conf.d/receiver.conf": "receiver.conf", "snippets/receiver-push.conf": "receiver-push.conf"}
    if old_platform:
        texts["conf.d/receiver_old_platform.conf"] = "old-platform.conf.example"
    edits = ["one-receiver.sed"] * one_receiver + ["accounts.sed"] * accounts
    if accounts:
        texts["conf.d/receiver_accounts.conf"] = "accounts.conf"
    script = [word for edit in edits for word in ("-f", str(DEPLOYED / edit))] or [""]
    changes = {"/etc/nginx/tls": str(place / "tls"), "/var/log/nginx": str(place / "log"), **replacements}
    unused = set(changes)
    for target, source in texts.items():
        text = subprocess.check_output(["sed", *script, str(DEPLOYED / source)], text=True)
        for old, new in changes.items():
            if old in text:
                unused.discard(old)
                text = text.replace(old, new)
        (place / target).write_text(text)
    assert not unused, f"in no file of {DEPLOYED}: {unused}"
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(_MAIN.format(place=place, user=user))
    return authority


@dataclass(kw_only=True)
class Nginx:
    """nginx on loopback in front of receivers there, from entering the context to leaving it."""

    place: Path
    receivers: Sequence[int]  # two ports
    platform: str | None = None  # whom alone no limit meets; None: nobody is limited
    old_platform: str | None = None  # whom the listeners of the example let in
    one_receiver: bool = False  # as one-receiver.sed makes it; the first port
    other_account: Sequence[int] = ()  # the two ports of its receivers, as accounts.conf has them; empty: there is none
    target: str = f"/push/{SECRET}"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.port, self.plain_port, self.inside_port, self.old_port, self.old_tls_port = free_ports(5)
        one, other = self.receivers
        replacements = {
            # Wildcards would meet other tests' on the same machine.
            "    listen [::]:443 ssl default_server;\n": "",
            "    listen [::]:80 default_server;\n": "",
            "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "listen 80 ": f"listen 127.0.0.1:{self.plain_port} ",
        }
        if self.one_receiver:
            replacements |= {
                "listen 8443 ": f"listen 127.0.0.1:{self.inside_port} ",
                "127.0.0.1:8000": f"127.0.0.1:{one}",
            }
        else:
            replacements |= {
                "10.0.0.5:443": f"127.0.0.1:{self.inside_port}",
                "10.0.0.11:8000": f"127.0.0.1:{one}",
                "10.0.0.12:8000": f"127.0.0.1:{other}",
            }
        if self.other_account:
            replacements |= {
                f"10.0.0.{host}:8000": f"127.0.0.1:{port}"
                for host, port in zip((13, 14), self.other_account, strict=True)
            }
        if self.platform is not None:
            replacements["    default  1;"] = f"    default  0;\n    {self.platform}  1;"
        if self.old_platform is not None:
            replacements |= {
                "    listen [::]:8080;\n": "",
                "    listen [::]:8444 ssl;\n": "",
                "listen 8080;": f"listen 127.0.0.1:{self.old_port};",
                "listen 8444 ": f"listen 127.0.0.1:{self.old_tls_port} ",
                "203.0.113.0/24": self.old_platform,
            }
        authority = lay_out(
            self.place,
            replacements,
            old_platform=self.old_platform is not None,
            one_receiver=self.one_receiver,
            accounts=bool(self.other_account),
        )
        self.trusted = ssl.create_default_context()
        authority.configure_trust(self.trusted)

    def __enter__(self) -> Self:
        program = require_program("nginx")
        self.check(program)
        self._process = subprocess.Popen(self._command(program), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not (self.place / "nginx.pid").read_text():  # empty since the check
            assert self._process.poll() is None, (self.place / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def check(self, program: str) -> None:
        """Let a program judge the configuration. Raises AssertionError for an error or a warning."""
        done = subprocess.run([*self._command(program), "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"\[(warn|error|crit|alert|emerg)\]", done.stderr), done.stderr

    def _command(self, program: str) -> list[str]:
        return [program, "-p", str(self.place), "-c", str(self.place / "nginx.conf")]

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=30)

    def connect(
        self, context: ssl.SSLContext | None = None, *, port: int | None = None, name: str = NAME
    ) -> ssl.SSLSocket:
        """Open a TLS connection, to the world's address unless another port is given."""
        plain = socket.create_connection(("127.0.0.1", port or self.port), timeout=20)
        try:
            return (context or self.trusted).wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def logs(self) -> str:
        """Give all that it has written down, wherever."""
        written = [*(self.place / "log").iterdir(), self.place / "error.log", self.place / "access.log"]
        return "\n".join(path.read_text(errors="replace") for path in written)
