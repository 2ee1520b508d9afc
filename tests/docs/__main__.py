"""Runs pages of the documentation: `python -m tests.docs PAGE…`; without one, all of them. Names what fails."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.db import migrate
from receiver.db.engine import Database
from tests.conftest import made_database
from tests.docs.pages import PAGES
from tests.docs.run import Run, Shared, run_page
from tests.harness.postgres import PostgresServer
from tests.harness.preloaded import Preloaded
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = 2


def main(paths: list[Path]) -> int:
    """Run the pages. Return the exit code."""
    with ExitStack() as ends:
        place = Path(ends.enter_context(tempfile.TemporaryDirectory()))

        @cache
        def postgres() -> PostgresServer:
            return ends.enter_context(PostgresServer(durable=False))

        @contextmanager
        def make_postgresql() -> Iterator[str]:
            with made_database(postgres().url()) as url:
                _upgrade(url)
                yield url

        ServeProcess.preloaded = preloaded = ends.enter_context(Preloaded())
        shared = Shared(preloaded.program, place / "receiver.db", make_postgresql)
        _upgrade(f"sqlite:///{shared.embedded}")

        def run(number: int) -> tuple[Run, float]:
            began = time.monotonic()
            return run_page(paths[number], place / str(number), shared), time.monotonic() - began

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            failed = 0
            for path, (came, took) in zip(paths, pool.map(run, range(len(paths))), strict=True):
                failed += bool(came.failures)
                print(f"{path}: {came.ran} run, {len(came.not_run)} not run, {took:.1f} s")
                for line in came.not_run:
                    print(f"    {line}")
                for fault in came.failures:
                    print("  FAILS " + fault.replace("\n", "\n        "))
    return min(failed, 1)


def _upgrade(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or list(PAGES)))
