"""Takes defences away, one at a time, in copies of the tree, and says which tests fail.

This process loads what is not ours once, and forks for each defence: the child alone loads `receiver` and its tests,
from the copy. Each copy has a PostgreSQL of its own, which its children share.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.bench.usage import list_tree
from tests.harness.postgres import PostgresServer
from tests.mutations import ROOT, take_away

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.mutations import Defence

_OURS = ("receiver", "tests", "migrations", "wsgi", "__main__")
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "mutants", "dist", "build", "var")
_LOOK_SECONDS = 0.05
_REASON_CHARS = 120


class Verdict(StrEnum):
    """What became of a defence that was taken away. All but the first are faults of the table or of a test."""

    FAILED = "failed as it should"
    SURVIVED = "SURVIVED"
    TIMEOUT = "TIMEOUT"
    NOT_FOUND = "NOT FOUND"
    NOT_RUN = "NOT RUN"  # the tests did not begin, so that they say nothing of the defence


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A defence, and what became of it once it was taken away."""

    defence: Defence
    verdict: Verdict
    test: str  # the one that failed, with its case; else the one that should have
    reason: str = ""  # why, in its own words
    seconds: float = 0.0

    def __str__(self) -> str:
        told = (self.verdict, self.defence.words, self.test, self.reason, f"{self.seconds:.0f} s")
        return " | ".join(text for text in told if text)


def run(
    defences: Sequence[Defence], *, workers: int, seconds: float, place: Path, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run each, `workers` at once; `tell` hears of each as it ends. `place`: an empty directory for the copies."""
    _load_what_is_not_ours({defence.test.partition("::")[0] for defence in defences})
    outcomes: list[Outcome] = []
    left = list(defences)
    with ExitStack() as stack:
        copies = [_Copy(place / str(number), stack) for number in range(workers)]
        while left or any(copy.busy for copy in copies):
            for copy in copies:
                if copy.busy and (outcome := copy.look()):
                    outcomes.append(outcome)
                    tell(outcome)
                if left and not copy.busy:
                    copy.begin(left.pop(0), seconds)
            time.sleep(_LOOK_SECONDS)
    return outcomes


class _Copy:
    """A copy of the tree, in which one defence at a time is tried."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root / "tree"
        self._heard = root / "heard.json"
        self._said = root / "said.txt"
        shutil.copytree(ROOT, self._root, ignore=_NOT_COPIED, symlinks=True)
        self._database = stack.enter_context(PostgresServer(durable=False))
        stack.callback(self._end)
        self._defence: Defence | None = None
        self._child = 0
        self._begun = self._deadline = 0.0
        self._tried = 0
        self._kept: tuple[Path, str, os.stat_result] | None = None

    @property
    def busy(self) -> bool:
        return self._defence is not None

    def begin(self, defence: Defence, seconds: float) -> None:
        self._defence = defence
        self._begun = time.monotonic()
        self._deadline = self._begun + seconds
        self._heard.unlink(missing_ok=True)
        self._child = 0
        try:
            text = take_away(defence, self._root)
        except ValueError as wrong:
            self._heard.write_text(json.dumps({"not_found": str(wrong)}))
            return
        self._tried += 1
        path = self._root / defence.file
        self._kept = (path, path.read_text(encoding="utf-8"), path.stat())
        path.write_text(text, encoding="utf-8")
        # A time of its own: what was compiled of any other text is told apart by it.
        as_of = path.stat().st_mtime + self._tried
        os.utime(path, (as_of, as_of))
        self._child = os.fork()
        if not self._child:
            _test(defence, self._root, self._heard, self._said, self._database.url(), seconds)

    def look(self) -> Outcome | None:
        """Give what became of the defence, once it has ended."""
        assert self._defence is not None
        late = time.monotonic() > self._deadline
        if self._child and not os.waitpid(self._child, os.WNOHANG)[0]:
            if not late:
                return None
            self._end()
        self._child = 0
        if self._kept is not None:
            path, text, was = self._kept
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
            self._kept = None
        defence, self._defence = self._defence, None
        heard = json.loads(self._heard.read_text()) if self._heard.exists() else None
        verdict, test, reason = _judge(defence, heard, self._said, late=late)
        taken = time.monotonic() - self._begun
        return Outcome(defence=defence, verdict=verdict, test=test, reason=reason, seconds=taken)

    def _end(self) -> None:
        if self._child:
            for process in list_tree(self._child):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0


def _judge(defence: Defence, heard: Any, said: Path, *, late: bool) -> tuple[Verdict, str, str]:
    if heard is None:
        told = (said.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        return Verdict.TIMEOUT if late else Verdict.NOT_RUN, defence.test, told
    if "not_found" in heard:
        return Verdict.NOT_FOUND, defence.test, heard["not_found"]
    if heard["failed"]:
        test, reason = heard["failed"][0]
        return Verdict.FAILED, test, reason
    if heard["broken"]:
        return Verdict.NOT_RUN, *heard["broken"][0]
    return Verdict.SURVIVED if heard["passed"] else Verdict.NOT_RUN, defence.test, f"{heard['passed']} passed"


# --- The child ----------------------------------------------------------------------------------------


class _Ear:
    """Hears from pytest what became of each test."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []
        self.broken: list[tuple[str, str]] = []  # before the test itself began
        self.passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            (self.broken if report.when == "setup" else self.failed).append((report.nodeid, _why(report)))
        self.passed += report.passed and report.when == "call"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append((report.nodeid, _why(report)))


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = str(crash.message if crash else report.longrepr).strip().splitlines()
    return (lines[0] if crash else lines[-1])[:_REASON_CHARS] if lines else ""


def _test(defence: Defence, root: Path, heard: Path, said: Path, database: str, seconds: float) -> NoReturn:
    """Be the process that tests: load everything of ours from the copy."""
    try:
        os.setsid()
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(out, standard)
        os.chdir(root)
        os.environ |= {"PYTHONPATH": str(root), "RECEIVER_TEST_DATABASE_URL": database}
        os.environ.pop("CI", None)
        sys.path[0] = str(root)
        for name in [name for name in sys.modules if name.partition(".")[0] in _OURS[:-1]]:
            del sys.modules[name]
        importlib.invalidate_caches()
        ear = _Ear()
        options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", f"--timeout={seconds * 2 / 3:.0f}"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that are loaded already
        pytest.main([*options, defence.test, *(["-k", defence.only] if defence.only else [])], plugins=[ear])
        assert sys.modules["receiver"].__file__ == str(root / "receiver" / "__init__.py")
        partial = heard.with_suffix(".part")
        partial.write_text(json.dumps(vars(ear)))
        partial.rename(heard)
    except BaseException:  # noqa: BLE001  (whoever looks at what the child said is to find it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _load_what_is_not_ours(tests: set[str]) -> None:
    """Load here what our modules load of others': a child finds it loaded."""
    ours = ["tests.conftest", "receiver.cli", "receiver.server.arbiter", "receiver.server.worker"]
    ours += sorted(name.removesuffix(".py").replace("/", ".") for name in tests)
    script = f"import sys, pytest\nimport {', '.join(ours)}\nprint(*sys.modules, sep='\\n')"
    listed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name.partition(".")[0] not in _OURS:
            with suppress(ImportError):
                importlib.import_module(name)
