"""A page as a newcomer follows it: its blocks pasted one after the other into one shell, beside a running server."""

from __future__ import annotations

import ast
import configparser
import csv
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Self

import psycopg
import yaml
from dotenv import dotenv_values
from sqlalchemy import make_url

from receiver.config import PUSH_SECRET_FILE
from receiver.config.loading import find_problems
from receiver.simulator import PushFaults, PushTarget, Rules, Simulator
from tests.docs.blocks import ROOT, Block, Page, read_page
from tests.docs.output import is_shown
from tests.harness.platforms import APP_ID, APP_KEY
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

_BLOCK_SECONDS = 120  # on a busy machine
_WRITTEN_PORT = "8000"  # where pages say that the server listens
_WRITTEN_HOST = "https://sms.example.com"
_ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|localhost|0\.0\.0\.0):(\d{4,5})\b")
_USE = re.compile(rf"\breceiver |\bmake |:{_WRITTEN_PORT}\b|\bvar/")
_SHOWN_OUTPUT = 1500  # characters of a failure

# What stands first on PATH: each is what a newcomer has, but what takes this test's place in it.
_PROGRAMS = {
    "receiver": 'if [ "$*" = serve ]; then exit 0; fi\nexec {receiver} "$@"',  # the page's server runs already
    # Pages have `make serve` and the like, which would install.
    "make": 'grep -q "^$1:" {makefile} || {{ echo "make: no rule $1" >&2; exit 2; }}',
    "git": 'if [ "$1" = clone ]; then exec mkdir -p "$(basename "$2" .git)"; fi\nexec {git} "$@"',
    # An answer of 400 and more is none that a page means, unless it shows it.
    "curl": 'for word; do case "$word" in --fail*|-[!-]*f*) exec {curl} --no-progress-meter "$@";; esac; done\n'
    '{curl} --no-progress-meter --fail-with-body "$@"\ncode=$?\n'
    'if [ $code = 22 ]; then echo refused >> "$DOCS_REFUSED"; exit 0; fi\nexit $code',
    "psql": 'exec env $DOCS_REPORT_ROLE {psql} "$@"',
}


@dataclass(frozen=True)
class Shared:
    """What pages share: databases whose schema is up to date, and a program that runs a command."""

    receiver: str  # the text of the program
    embedded: Path  # to copy
    make_postgresql: Callable[[], AbstractContextManager[str]]  # gives the URL of one


@dataclass
class Run:
    """What came of a page."""

    ran: int = 0  # blocks
    not_run: list[str] = field(default_factory=list)  # "line 12: not run: needs root"
    failures: list[str] = field(default_factory=list)


def run_page(path: Path, place: Path, shared: Shared) -> Run:
    """Run every block of the page in a fresh folder below `place`."""
    page = read_page(path)
    run = Run(failures=list(page.faults))
    with _Scene(page, place, shared) as scene:
        for number, block in enumerate(page.blocks):
            if block.not_run:
                run.not_run.append(f"line {block.line}: {block.not_run}")
                continue
            run.ran += 1
            following = page.blocks[number + 1] if number + 1 < len(page.blocks) else None
            shown = following if following and following.language == "text" and following.follows else None
            try:
                fault = scene.take(block, shown)
            except RuntimeError as error:
                fault = f"the server does not start:\n{_cut(str(error))}"
            if fault:
                run.failures.append(f"line {block.line}: {fault}")
                if block.language == "sh":
                    break  # what follows builds on it
    return run


class _Scene:
    """The folder, the shell, the server and the platform of one page; each begins when the first block needs it."""

    def __init__(self, page: Page, place: Path, shared: Shared) -> None:
        self._page = page
        self._shared = shared
        self._ends = ExitStack()
        self._folder = place / "folder"
        self._folder.mkdir(parents=True)
        self._place = place
        self._shell: _Shell | None = None
        self._port = free_port()
        text = "\n".join(block.code for block in page.blocks if not block.not_run)
        self._ports = {
            written: str(self._port if written == _WRITTEN_PORT else free_port())
            for written in {_WRITTEN_PORT, *_ADDRESS.findall(text)}
        }
        self._database_url = ""
        self._report_url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def take(self, block: Block, shown: Block | None) -> str:
        """Do what stands in the block. Return what is wrong with it, or nothing."""
        code = self._here(block.code)
        if block.language == "sh":
            return self._open_shell().paste(code, self._here(shown.code) if shown else None)
        if block.language == "python":
            return self._write(code)
        if block.language == "sql":
            return self._ask(code)
        return _CHECKS[block.language](code) if block.language in _CHECKS else ""  # else a fault of the page's form

    def _here(self, code: str) -> str:
        """Return the code with this page's ports and server."""
        code = code.replace(_WRITTEN_HOST, f"http://127.0.0.1:{self._port}")
        return re.sub(r"(?<![\d.])\d{4,5}(?!\d)", lambda found: self._ports.get(found[0], found[0]), code)

    def _write(self, code: str) -> str:
        name = re.match(r"# (\S+\.py)\b", code)
        if name is None:
            return "its first line is no comment with the name of its file"
        try:
            ast.parse(code)
        except SyntaxError as error:
            return f"no Python: {error}"
        (self._folder / name[1]).write_text(code, encoding="utf-8")
        return ""

    def _ask(self, code: str) -> str:
        try:
            with psycopg.connect(self._report_login(), autocommit=True) as connection:
                connection.execute(code.encode())
        except psycopg.Error as error:
            return str(error).strip()
        return ""

    def _report_login(self) -> str:
        """Return the URL of the role that reads the views: of the page's server, or of a database for it alone."""
        if self._report_url:
            return self._report_url
        self._make_postgresql()
        name = f"docs_{self._port}"
        made = subprocess.run(
            [sys.executable, "-m", "receiver", "db", "create-report-role", name],
            env={**os.environ, "RECEIVER_DATABASE_URL": self._database_url.replace("+psycopg", "")},
            cwd=self._place,
            capture_output=True,
            text=True,
            check=True,
        )
        self._ends.callback(self._drop, name)
        url = make_url(self._database_url.replace("+psycopg", ""))
        url = url.set(username=name, password=made.stdout.splitlines()[-1])
        self._report_url = url.render_as_string(hide_password=False)
        return self._report_url

    def _open_shell(self) -> _Shell:
        if self._shell is None:
            environment = self._serve() if self._is_served() else dict(os.environ)
            environment |= _make_programs(self._place / "programs", self._shared.receiver) | self._report_environment()
            self._shell = self._ends.enter_context(_Shell(self._folder, self._place, environment))
        return self._shell

    def _is_served(self) -> bool:
        """Return whether the page does anything with a server: most of what a page takes is its start."""
        run = [block for block in self._page.blocks if not block.not_run]
        asks = any(_USE.search(block.code) for block in run if block.language in ("sh", "python"))
        return asks or self._page.postgresql or any(block.for_server for block in run)

    def _serve(self) -> dict[str, str]:
        """Start the server as the page sets it, and the platform. Return the environment of its commands."""
        settings = {
            name: value or ""
            for block in self._page.blocks
            if block.for_server and not block.not_run
            for name, value in _settings(self._here(block.code)).items()
        }
        credentials = settings.get("RECEIVER_PLATFORM_CREDENTIALS") or f"default:{APP_ID}:{APP_KEY}"
        platform_port = free_port()
        if self._page.postgresql:
            self._make_postgresql()
        data_dir = self._folder / "var"
        process = _PageServer(
            data_dir,
            self._database_url,
            environment={
                **settings,
                "RECEIVER_PUSH_TOKENS": "",  # it makes one, as for a newcomer
                "RECEIVER_PLATFORM_CREDENTIALS": credentials,
                "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
            },
        )
        process.port = self._port
        data_dir.mkdir(mode=0o700)
        if not self._page.postgresql:
            shutil.copyfile(self._shared.embedded, data_dir / "receiver.db")
        self._ends.enter_context(process)
        secret = (data_dir / PUSH_SECRET_FILE).read_text().strip().partition(":")[2]
        push_url = f"http://127.0.0.1:{self._port}/push/{secret}"
        platform = Simulator(
            bind=("127.0.0.1", platform_port),
            rules=Rules(credentials=dict(each.split(":")[1:3] for each in credentials.split(",")), balance=1000),
            how=PushFaults(failures=0, replies=0, hurry=True),
            target=PushTarget(receipt_url=push_url, reply_url=push_url),
            seed=1,
            first_task_id=3313746,
        )
        self._ends.enter_context(platform)
        self._ends.callback(platform.cancel)  # first: the page is done, and wants no more pushes
        return process.env

    def _make_postgresql(self) -> None:
        """Make the page's PostgreSQL database, unless there is one."""
        self._database_url = self._database_url or self._ends.enter_context(self._shared.make_postgresql())

    def _report_environment(self) -> dict[str, str]:
        """Return what `psql` needs to be the role that reads the views."""
        if not self._page.postgresql:
            return {}
        url = make_url(self._report_login())
        login = {"HOST": url.host, "PORT": url.port, "USER": url.username}
        login |= {"PASSWORD": url.password, "DATABASE": url.database}
        return {"DOCS_REPORT_ROLE": " ".join(f"PG{key}={value}" for key, value in login.items())}

    def _drop(self, role: str) -> None:
        with psycopg.connect(self._database_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"'.encode())


class _PageServer(ServeProcess):
    """A server of a page, which makes its own secret."""

    def start(self) -> None:
        super().start()
        assert self.request("GET", "/readyz").status == 200  # it has met its database, as a reader's has

    def stop(self, *how: object) -> int | None:
        code = super().stop(*how)  # type: ignore[arg-type]
        secret = (self.data_dir / PUSH_SECRET_FILE).read_text().strip().partition(":")[2]
        assert secret not in self.log.read_text(errors="replace")
        return code


class _Shell:
    """One bash that takes block after block; it ends at the first command that fails."""

    def __init__(self, folder: Path, place: Path, environment: Mapping[str, str]) -> None:
        self._place = place
        self._failed = place / "failed-line"
        self._refused = place / "refused"
        self._number = 0
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-s"],
            env={**environment, "DOCS_REFUSED": str(self._refused), "LC_ALL": "C.UTF-8"},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._say(f"set -eE -o pipefail; trap 'echo $LINENO >> {shlex.quote(str(self._failed))}' ERR")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, SIGKILL)  # with what it left running
        self._process.communicate()

    def paste(self, code: str, shown: str | None) -> str:
        """Run the block. Return the line that fails, or how the output differs from what is shown, or nothing."""
        self._number += 1
        script, written = (self._place / f"block-{self._number}.{kind}" for kind in ("sh", "out"))
        script.write_text(code, encoding="utf-8")
        self._refused.write_text("")
        self._failed.write_text("")
        self._say(f". {shlex.quote(str(script))} > {shlex.quote(str(written))} 2>&1 < /dev/null; echo done")
        ended = self._await_end()
        output = written.read_text(encoding="utf-8", errors="replace") if written.exists() else ""
        lines = self._failed.read_text().split()
        if ended:
            return f"not done after {ended} s:\n{_cut(output)}"
        if lines:
            line = int(lines[0])
            return f"fails in its line {line}: {code.splitlines()[min(line, code.count(chr(10))) - 1]}\n{_cut(output)}"
        if self._process.poll() is not None:
            return f"ends the shell:\n{_cut(output)}"
        if shown is None and self._refused.read_text():
            return f"an answer of 400 or more, which the page does not show:\n{_cut(output)}"
        if shown is not None and not is_shown(shown, output):
            return f"shows:\n{_cut(output)}\nand not:\n{_cut(shown)}"
        return ""

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def _await_end(self) -> int:
        """Wait until the block is done or the shell has ended. Return the seconds after which it was given up."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _BLOCK_SECONDS)[0]:
            return _BLOCK_SECONDS
        if not self._process.stdout.readline():
            self._process.wait(timeout=_BLOCK_SECONDS)
        return 0


def _make_programs(place: Path, receiver: str) -> dict[str, str]:
    place.mkdir()
    loaded = place / "loaded-receiver"
    loaded.write_text(receiver)
    loaded.chmod(0o755)
    names = {name: shutil.which(name) for name in ("git", "curl", "psql")}
    names |= {"receiver": str(loaded), "makefile": str(ROOT / "Makefile")}
    for name, script in _PROGRAMS.items():
        program = place / name
        program.write_text(f"#!/bin/bash\n{script.format(**names)}\n")
        program.chmod(0o755)
    return {"PATH": f"{place}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _settings(code: str) -> dict[str, str | None]:
    return dotenv_values(stream=StringIO(code), interpolate=False)


def _check_ini(code: str) -> str:
    if re.search(r"^\[", code, re.MULTILINE):
        return _check_unit(code)
    settings = _settings(code)
    others = [name for name in settings if not name.startswith(("RECEIVER_", "OTEL_"))]
    # A file of a secret is on the reader's machine alone; its setting is checked by name.
    here = {name: value for name, value in settings.items() if not name.endswith("_FILE")}
    named = {name.removesuffix("_FILE"): None for name in settings if name.endswith("_FILE")}
    return "; ".join([*(f"{name}: no setting" for name in others), *find_problems({**named, **here})])


def _check_unit(code: str) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(code)
    except configparser.Error as error:
        return str(error)
    return ""


def _check_text(code: str) -> str:
    return "" if code.strip() else "is empty"  # compared with the output of the block before it


def _check_nginx(code: str) -> str:
    lines = [line.partition(" #")[0].strip() for line in code.splitlines() if not line.strip().startswith("#")]
    wrong = [line for line in lines if line and not line.endswith((";", "{", "}"))]
    if wrong:
        return f"no directive of nginx: {wrong[0]}"
    return "" if code.count("{") == code.count("}") else "its braces do not pair"


def _parsed(parse: Callable[[str], object]) -> Callable[[str], str]:
    def check(code: str) -> str:
        try:
            parse(code)
        except (ValueError, yaml.YAMLError) as error:
            return str(error)
        return ""

    return check


def _check_csv(code: str) -> str:
    rows = list(csv.reader(StringIO(code), strict=True))
    return "" if rows and len({len(row) for row in rows}) == 1 else "its rows have not the same number of cells"


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_OUTPUT else f"…{text[-_SHOWN_OUTPUT:]}"


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "text": _check_text,
    "ini": _check_ini,
    "json": _parsed(json.loads),
    "yaml": _parsed(lambda code: list(yaml.safe_load_all(code))),
    "toml": _parsed(tomllib.loads),
    "nginx": _check_nginx,
    "csv": _check_csv,
}
