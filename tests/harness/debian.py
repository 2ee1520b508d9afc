"""A fresh Debian follows the page "Install on Debian 12" to the letter: `python -m tests.harness.debian`.

Needs root, debootstrap, systemd-nspawn (package systemd-container) and this machine's Debian mirror. Debian gets what
its apt-get line names while it is made; then it boots with systemd, its own processes and a network of its own that
leads nowhere, and runs every command of the page. The stand-ins: a name in /etc/hosts for DNS, a certificate of a
CA made here, a password on standard input. Then pushes go in over HTTPS, also while `systemctl restart` runs.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy/docs/how-to/debian.md"
SUITE = "bookworm"
NAME = "sms.example.com"
# What every installed Debian has, and the smallest that debootstrap makes has not.
BASE = ("systemd-sysv", "dbus", "ca-certificates")
_PASSWORD = "correct horse battery staple\n"
_BOOT_SECONDS = 300


def main() -> None:
    """Make Debian, follow the page in it, push, restart, and count."""
    parser = argparse.ArgumentParser(description="follow the page for Debian on a fresh one")
    parser.add_argument("--root", type=Path, help="where Debian is made and stays, for the next time")
    parser.add_argument("--push", nargs=2, metavar=("URL", "CA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.push:
        _push_until_told(*arguments.push)
        return
    blocks = commands(PAGE)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        base = arguments.root or work / "base"
        _timed("Debian", lambda: make_debian(base, packages=[*BASE, *packages_of(blocks)]))
        bundle = _timed("bundle", lambda: make_bundle(work))
        with overlaid(base, work) as root:
            shutil.copy(bundle, root / "root")
            (root / "etc/hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
            make_certificate(root / "etc/nginx/tls", work / "ca.pem")
            with booted(root) as debian:
                _timed("page", lambda: follow(debian, blocks))
                _timed("pushes", lambda: push_through_restart(debian, work / "ca.pem"))
                _timed("timers", lambda: run_timed(debian))
                print(debian.run("systemd-analyze security receiver | tail -1; systemctl --failed --no-legend").strip())


def commands(page: Path) -> list[str]:
    """Give the blocks of a page that a reader pastes in a shell, as they stand there."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def packages_of(blocks: list[str]) -> list[str]:
    """Give the packages that the page installs."""
    (line,) = (line for block in blocks for line in block.splitlines() if line.startswith("apt-get install"))
    return [word for word in line.split()[2:] if not word.startswith("-")]


def make_debian(root: Path, *, packages: list[str]) -> None:
    """Make a Debian of this machine's mirror, unless there is one."""
    if (root / "etc/debian_version").exists():
        return
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources")]
    text = "\n".join(source.read_text() for source in sources if source.exists())
    mirror = re.search(r"^(?:URIs:|deb)\s+(?:\[.*\]\s+)?(https?://\S*debian/?)(?:\s|$)", text, re.MULTILINE)
    assert mirror, "this machine names no Debian mirror"
    wanted = ",".join(dict.fromkeys(packages))
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={wanted}", SUITE, str(root), mirror[1]],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def make_bundle(into: Path) -> Path:
    """Make the bundle, with the one extra that the page needs."""
    environment = {**os.environ, "PYTHON": sys.executable, "EXTRAS": "postgres"}
    made = subprocess.run(
        [str(ROOT / "deploy/bundle.sh"), str(into)], env=environment, check=True, capture_output=True, text=True
    )
    return Path(made.stdout.split()[-1])


def make_certificate(into: Path, ca_file: Path) -> None:
    """Make what a certificate authority gives: the full chain and a key."""
    ca = trustme.CA()
    issued = ca.issue_cert(NAME)
    into.mkdir(parents=True)
    ca.cert_pem.write_to_path(ca_file)
    issued.private_key_pem.write_to_path(into / "privkey.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(into / "fullchain.pem", append=number > 0)


@contextmanager
def overlaid(base: Path, work: Path) -> Iterator[Path]:
    """Lay an empty directory over a Debian, so that it stays as it was made."""
    parts = {name: work / name for name in ("upper", "work", "merged")}
    for part in parts.values():
        part.mkdir()
    options = f"lowerdir={base},upperdir={parts['upper']},workdir={parts['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])], check=True)
    try:
        yield parts["merged"]
    finally:
        subprocess.run(["umount", str(parts["merged"])], check=True)


@dataclass(frozen=True, kw_only=True)
class Debian:
    """One that has booted."""

    leader: int  # its first process, as this machine counts

    def inside(self, *command: str) -> list[str]:
        """Give the command that runs a command in it."""
        return [
            "nsenter",
            f"--target={self.leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            *command,
        ]

    def run(self, script: str, stdin: str = "") -> str:
        """Run a script as root logs in; its output."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = ["env", "-i", f"PATH={path}", "HOME=/root", "LANG=C.UTF-8"]
        done = subprocess.run(
            self.inside(*environment, "bash", "-euc", f"cd /root; {script}"),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            raise SystemExit(f"failed ({done.returncode}):\n{script}\n{done.stdout}{self._journal()}")
        return done.stdout

    def _journal(self) -> str:
        shown = ["journalctl", "--no-pager", "--lines=60", "--priority=info"]
        return subprocess.run(self.inside(*shown), capture_output=True, text=True, check=False).stdout


@contextmanager
def booted(root: Path) -> Iterator[Debian]:
    """Boot a Debian with its systemd, and shut it down."""
    (root / "etc/machine-id").write_text("")  # a machine that has booted before: no first boot's questions and presets
    container = subprocess.Popen(
        ["systemd-nspawn", "--quiet", "-D", str(root), "--private-network", "--register=no", "--keep-unit", "--boot"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _BOOT_SECONDS
        state = ""
        while state not in ("running", "degraded"):
            assert container.poll() is None, "systemd-nspawn ended"
            assert time.monotonic() < deadline, f"it has not booted: {state}"
            time.sleep(0.5)
            # The first child makes the second, which is Debian's first process, and ends.
            children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
            debian = Debian(leader=int(children[-1]) if children else 0)
            asked = debian.inside("systemctl", "is-system-running")
            state = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        yield debian
    finally:
        container.send_signal(signal.SIGTERM)  # systemd-nspawn asks its systemd to halt
        try:
            container.wait(timeout=60)
        except subprocess.TimeoutExpired:
            container.kill()
            container.wait()


def follow(debian: Debian, blocks: list[str]) -> None:
    """Run every command of the page, in the directory that it leads into."""
    directory = "."
    for block in blocks:
        print("".join(f"    # {line}\n" for line in block.splitlines()), end="", flush=True)
        told = debian.run(f"cd {directory}; {block}", stdin=_PASSWORD if "users create" in block else "")
        print(re.sub(r"(/push/|rcv_)\w+", r"\1***", told), end="", flush=True)
        if entered := re.search(r"^cd (\S+)$", block, re.MULTILINE):
            directory = entered[1]


def push_through_restart(debian: Debian, ca_file: Path) -> None:
    """Push over HTTPS without a pause while receiver restarts: none refused, each kept once."""
    url = debian.run("receiver push-url").strip()
    command = [sys.executable, "-m", "tests.harness.debian", "--push", url, str(ca_file)]
    pusher = subprocess.Popen(
        ["nsenter", f"--target={debian.leader}", "--net", *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert pusher.stdout is not None
    assert pusher.stdout.readline() == "pushes\n"
    before = debian.run("systemctl show receiver --property=MainPID")
    debian.run("systemctl restart receiver")
    assert debian.run("systemctl show receiver --property=MainPID") != before
    told, _ = pusher.communicate("stop\n", timeout=60)
    assert pusher.returncode == 0, told
    acknowledged, longest = told.split()
    ask = "select count(*), count(distinct m.task_id) from receipts r join messages m on m.id = r.message_id"
    rows, tasks = debian.run(f"su postgres -c \"psql -At -F' ' receiver -c '{ask}'\"").splitlines()[-1].split()
    assert rows == tasks == acknowledged, (rows, tasks, acknowledged)
    debian.run("receiver verify")
    print(
        f"{acknowledged} pushes over HTTPS, each acknowledged and kept; the longest took {longest} s, over the restart"
    )


def run_timed(debian: Debian) -> None:
    """Run at once what the timers run each minute and each night, and rehearse the restore of what that leaves."""
    debian.run("! RECEIVER_TIMEZONE=Mars receiver push-url")  # a setting that is given wins
    debian.run("systemctl start receiver-run@alarms.service receiver-backup.service")
    kept = debian.run("ls /var/backups/receiver").split()
    assert [name.endswith(".dump") for name in sorted(kept)] == [False, True], kept
    rehearse = "/opt/receiver/deploy/postgresql/rehearse-restore.sh $(ls -t /var/backups/receiver/*.dump | head -n 1)"
    print(debian.run(f"RECEIVER=/opt/receiver/bin/receiver {rehearse}"), end="")


def _push_until_told(url: str, ca_file: str) -> None:
    """Push one receipt after the other until a line arrives; any answer but 200 ends this with an error."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    context = ssl.create_default_context(cafile=ca_file)
    form = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
    acknowledged, longest = 0, 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        started = time.monotonic()
        connection = http.client.HTTPConnection(host)
        bare = socket.create_connection(("127.0.0.1", 443), timeout=60)
        connection.sock = context.wrap_socket(bare, server_hostname=host)
        body = f"mobile=15080921090&taskid={acknowledged}&status=1&receivetime=2026-11-23+09%3A14%3A03"
        connection.request("POST", parts.path, body, form)
        answer = connection.getresponse()
        if (answer.status, answer.read()) != (200, b"ok"):
            raise SystemExit(f"push {acknowledged} was answered {answer.status}")
        connection.close()
        acknowledged += 1
        longest = max(longest, time.monotonic() - started)
        if acknowledged == 20:
            print("pushes", flush=True)
    print(acknowledged, round(longest, 1))


def _timed(name: str, work: Callable[[], T]) -> T:
    """Do a part, and say how long it took."""
    started = time.monotonic()
    done = work()
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return done


if __name__ == "__main__":
    main()
