"""`python -m tests.bench.painted OTHER`: from pressing Enter to the painted answer, beside another checkout.

OTHER is a checkout with its own `.venv`. Both serve the same 20,000 messages from the embedded database; one browser
looks the same numbers up in both, by turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.bench.console import PAINTED
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

_MESSAGES, _DAYS, _WARM_UPS = 20_000, 20, 5
_USER, _PASSWORD = "sue", "as long as it takes"
_HERE = Path(__file__).parents[2]


def main() -> int:
    """Measure, print the medians and their ratio, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    chance = random.Random(540)
    sends = [_make_send(chance, number) for number in range(_MESSAGES)]
    numbers = [send["mobile"] for send in chance.sample(sends, given.rounds + _WARM_UPS)]
    taken: dict[str, list[float]] = {"other": [], "this": []}
    with ExitStack() as stack:
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        pages = {}
        for name, root in (("other", given.other.resolve()), ("this", _HERE)):
            pages[name] = _log_in(browser.new_page(base_url=stack.enter_context(_serve(root, sends))))
        for turn, number in enumerate(numbers):
            for name in ("other", "this") if turn % 2 else ("this", "other"):
                milliseconds = _look_up(pages[name], number)
                if turn >= _WARM_UPS:
                    taken[name].append(milliseconds)
        browser.close()
    for name, times in taken.items():
        print(f"{name}: median {statistics.median(times):.0f} ms, p95 {statistics.quantiles(times, n=20)[-1]:.0f} ms")
    print(f"ratio of medians {statistics.median(taken['this']) / statistics.median(taken['other']):.2f}")
    return 0


def _make_send(chance: random.Random, number: int) -> dict[str, str]:
    sent_at = datetime.now(UTC) - timedelta(seconds=chance.random() * _DAYS * 86400)
    return {
        "task_id": str(7_000_000 + number),
        "mobile": f"1{chance.choice((38, 50, 86))}{chance.randrange(10**8):08d}",
        "template_id": str(540 + number % 4),
        "sent_at": sent_at.isoformat(timespec="milliseconds"),
    }


@contextmanager
def _serve(root: Path, sends: list[dict[str, str]]) -> Iterator[str]:
    """Serve these sends by a checkout, and yield where."""
    with tempfile.TemporaryDirectory() as place:
        bind = f"127.0.0.1:{free_port()}"
        settings = {"RECEIVER_DATA_DIR": place, "RECEIVER_BIND": bind, "RECEIVER_CONSOLE_TOTP": "optional"}
        environment = {**os.environ, **settings}
        receiver = [str(root / ".venv/bin/python"), "-m", "receiver"]

        def run(*arguments: str, given: str) -> None:
            command = [*receiver, *arguments]
            subprocess.run(command, env=environment, cwd=place, input=given, text=True, capture_output=True, check=True)

        server = subprocess.Popen(
            [*receiver, "serve"], env=environment, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _await_answer(f"http://{bind}/healthz")
            run("messages", "import", "-", given="\n".join(map(json.dumps, sends)))
            run("users", "create", _USER, "--role", "support", given=f"{_PASSWORD}\n")
            yield f"http://{bind}"
        finally:
            server.terminate()
            server.wait(30)


def _await_answer(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


def _log_in(page: Page) -> Page:
    page.goto("/console/login")
    page.fill("input[name=name]", _USER)
    page.fill("[name=password]", _PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/")
    return page


def _look_up(page: Page, number: str) -> float:
    """Look a number up; return the milliseconds until its answer was painted."""
    page.goto("/console/")
    page.select_option("[name=period]", "30d")
    page.fill("[name=wanted]", number)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers .answer-text")
    page.wait_for_timeout(150)
    return float(page.evaluate(PAINTED))


if __name__ == "__main__":
    sys.exit(main())
