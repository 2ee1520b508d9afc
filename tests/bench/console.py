"""`python -m tests.bench.console FULL`: from pressing Enter to the painted answer, in a browser.

On a database of `tests.bench.fill`, look-ups as support staff make them, alone and while pushes come in at a rate. The
browser, the server, PostgreSQL and the load generator share the cores.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from playwright.sync_api import sync_playwright

from tests.bench.contestants import CONTESTANTS, Running
from tests.bench.report import publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Page

_CLIENTS = 32
_DRAWS = 200
_PASSWORD = "as long as it takes"
_PAUSE_MS = 150
# From the beginning of the navigation, which is the sending of the form: redirect and all, until there is something to
# see; the answer is part of the page that comes.
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def main() -> int:
    """Measure, write the section, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", help="postgresql://… of a filled database")
    parser.add_argument("--look-ups", type=int, default=150)
    parser.add_argument("--rate", type=float, required=True, help="pushes a second: half of what the mixed bench found")
    given = parser.parse_args()
    wanted = _draw(given.full)
    name = _make_user(given.full)
    with Running(CONTESTANTS["receiver"], "postgresql", given.full) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(base_url=f"http://127.0.0.1:{urlsplit(server.url).port}")
        page.goto("/console/login")
        page.fill("[name=name]", name)
        page.fill("[name=password]", _PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/")
        _look_up(page, wanted, 10)
        times = {"nothing": _look_up(page, wanted, given.look_ups)}
        stop = threading.Event()
        load = threading.Thread(target=_push_on, args=(stop, server.url, given.rate))
        load.start()
        time.sleep(2)
        times[f"{given.rate:,.0f} pushes/s"] = _look_up(page, wanted, given.look_ups)
        stop.set()
        load.join()
        browser.close()
    with psycopg.connect(given.full) as connection:
        version = str(connection.execute("SHOW server_version").fetchone()[0]).split(" ")[0]
        count = connection.execute("SELECT reltuples::bigint FROM pg_class WHERE relname = 'messages'").fetchone()[0]
    lines = [
        f"{count:,} messages; milliseconds:",
        "",
        "| beside | p50 | p95 | slowest | look-ups |",
        "|---|--:|--:|--:|--:|",
    ]
    for beside, taken in times.items():
        cuts = statistics.quantiles(taken, n=100)
        lines.append(f"| {beside} | {cuts[49]:.0f} | {cuts[94]:.0f} | {max(taken):.0f} | {len(taken)} |")
    publish(
        "console",
        "A look-up in the console, to the painted answer",
        "By number, task id and last four digits over 30 days, in"
        " Chromium: from sending the form to the first paint of the page with the answer. The browser, the server,"
        " PostgreSQL and the load generator share the cores.",
        lines,
        version=version,
    )
    return 0


def _draw(database: str) -> Sequence[str]:
    """Draw numbers, task ids and last four digits of messages of the last 30 days."""
    chance = random.Random(540)
    with psycopg.connect(database) as connection:
        newest = connection.execute("SELECT max(id) FROM messages WHERE sent_at IS NOT NULL").fetchone()[0]
        ids = [chance.randint(newest - newest // 4, newest) for _ in range(_DRAWS)]
        query = "SELECT task_id, mobile FROM messages WHERE id = ANY(%s) AND task_id IS NOT NULL"
        drawn = connection.execute(query, [ids]).fetchall()
    return [text for task_id, mobile in drawn for text in (mobile, task_id, mobile[-4:])]


def _look_up(page: Page, wanted: Sequence[str], count: int) -> list[float]:
    chance = random.Random(1)
    taken = []
    for _ in range(count):
        page.goto("/console/")
        page.select_option("[name=period]", "30d")
        page.fill("[name=wanted]", chance.choice(wanted))
        page.keyboard.press("Enter")
        page.wait_for_selector("#answers .answer-text")
        page.wait_for_timeout(_PAUSE_MS)
        assert "/look-up/" in page.url
        taken.append(float(page.evaluate(PAINTED)))
    assert all(taken)
    return taken


def _push_on(stop: threading.Event, url: str, rate: float) -> None:
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--clients", str(_CLIENTS)]
    while not stop.is_set():
        subprocess.run([*command, "--seconds", "10", "--rate", str(rate)], capture_output=True, check=True)


def _make_user(database: str) -> str:
    name = f"bench-{time.time_ns()}"
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "RECEIVER_DATABASE_URL": database, "RECEIVER_DATA_DIR": place}
        command = [sys.executable, "-m", "receiver", "users", "create", name, "--role", "support"]
        subprocess.run(command, env=environment, input=_PASSWORD, text=True, capture_output=True, check=True)
    return name


if __name__ == "__main__":
    sys.exit(main())
