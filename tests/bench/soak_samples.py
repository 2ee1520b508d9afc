"""What `tests.bench.soak` samples, and the table that it makes of the samples."""

from __future__ import annotations

import os
import re
import statistics
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tests.bench.soak_load import CLIENTS
from tests.bench.usage import list_tree
from tests.harness.leaks import leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.soak_load import Pace
    from tests.harness.server import ServeProcess

_BAD_LINE = re.compile(r'"level": "(?:warning|error|critical)"|Traceback')
_MARKS_MINUTES = (15, 30, 60, 90, 120)
_SMOOTHED_SECONDS = 300.0  # a prune every five minutes makes the sizes a saw
_WARM_UP_SECONDS = 900.0


def sample_processes(root: int) -> dict[str, float]:
    """Return what the processes of a tree take: memory in MB, files, threads."""
    rss, pss, files, threads = [], 0, 0, 0
    tree = list_tree(root)
    for pid in tree:
        with suppress(OSError, ValueError):
            place = Path(f"/proc/{pid}")
            said = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            rss.append(int(said.get("VmRSS", "0 kB").split()[0]) / 1024)
            threads += int(said["Threads"])
            files += len(list((place / "fd").iterdir()))
            rollup = dict(line.split(":", 1) for line in (place / "smaps_rollup").read_text().splitlines()[1:])
            pss += int(rollup["Pss"].split()[0])
    return {
        "processes": len(rss),
        "rss_mb": round(sum(rss), 1),
        "largest_mb": round(max(rss, default=0.0), 1),
        "pss_mb": round(pss / 1024, 1),
        "files": files,
        "threads": threads,
    }


def sample_postgres(url: str) -> dict[str, float]:
    """Return the sizes of WAL and database in MB, the sessions, and the rows of the journal."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(size) FROM pg_ls_waldir()) / 1e6, pg_database_size(current_database()) / 1e6, "
            "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()), "
            "(SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'pushes')"
        ).fetchone()
    assert row is not None
    return dict(
        zip(("wal_mb", "database_mb", "sessions", "journal_rows"), (round(float(n), 1) for n in row), strict=True)
    )


_SCRAPED = {
    "receiver_spool_records": "spool_records",
    "receiver_spool_bytes": "spool_bytes",
    "receiver_projection_lag_seconds": "projection_lag_s",
    "receiver_webhook_queue": "webhook_queue",
    "receiver_webhook_pending": "webhook_pending",
    "receiver_webhook_oldest_age_seconds": "webhook_oldest_s",
    "receiver_webhook_dead_letters": "webhook_dead",
}


def scrape(node: ServeProcess) -> dict[str, float]:
    """Return what `/metrics` says of spool, projection and webhooks."""
    found = dict.fromkeys(_SCRAPED.values(), 0.0)
    for line in node.request("GET", "/metrics").body.decode().splitlines():
        name = _SCRAPED.get(re.split(r"[ {]", line, maxsplit=1)[0])
        if name:
            found[name] += float(line.rsplit(" ", 1)[1])
    return found


def sample_data(node: ServeProcess) -> dict[str, float]:
    """Return how many files its data directory has, and their MB."""
    files = [path for path in node.data_dir.rglob("*") if path.is_file() and path != node.log]
    size = 0
    for path in files:
        with suppress(OSError):
            size += path.stat().st_size
    return {"data_files": len(files), "data_mb": round(size / 1e6, 2)}


class Log:
    """The server's log: read and emptied at each sample, else hours of it would be gigabytes."""

    def __init__(self, node: ServeProcess, kept: Path) -> None:
        self._path = node.log
        self._kept = kept
        self.leaks = 0

    def take(self) -> dict[str, float]:
        """Count its warnings and errors, keep those, and empty it."""
        text = self._path.read_text(errors="replace")
        os.truncate(self._path, 0)
        bad = [line for line in text.splitlines() if _BAD_LINE.search(line) or not line.startswith("{")]
        self.leaks += len(leaks(text))
        with self._kept.open("a") as file:
            file.writelines(f"{line}\n" for line in bad)
        return {"log_warnings": len(bad), "log_mb": round(len(text) / 1e6, 2)}


# What is shown, of which samples before a mark (the mean, the greatest, their sum since the beginning), and digits.
_ROWS: tuple[tuple[str, str, Callable[[Sequence[float]], float], int], ...] = (
    ("acknowledged pushes/s", "acks_per_second", statistics.fmean, 0),
    ("acknowledgement p50, ms", "p50_ms", statistics.fmean, 1),
    ("acknowledgement p99, ms", "p99_ms", statistics.fmean, 1),
    ("slowest acknowledgement, ms", "slowest_ms", max, 0),
    ("questions p99, ms", "read_p99_ms", statistics.fmean, 0),
    ("RSS of all processes, MB", "rss_mb", statistics.fmean, 0),
    ("PSS of all processes, MB", "pss_mb", statistics.fmean, 0),
    ("RSS of the largest process, MB", "largest_mb", statistics.fmean, 0),
    ("open files", "files", statistics.fmean, 0),
    ("threads", "threads", statistics.fmean, 0),
    ("sessions in PostgreSQL", "sessions", statistics.fmean, 0),
    ("PostgreSQL's WAL, MB", "wal_mb", statistics.fmean, 0),
    ("database, MB", "database_mb", statistics.fmean, 0),
    ("pushes in the journal, thousand", "journal_rows", lambda values: statistics.fmean(values) / 1000, 0),
    ("files of the data directory", "data_files", statistics.fmean, 0),
    ("bytes of the data directory, MB", "data_mb", statistics.fmean, 1),
    ("projection lag, s", "projection_lag_s", statistics.fmean, 2),
    ("records in the spool", "spool_records", max, 0),
    ("webhook events not made into deliveries", "webhook_queue", statistics.fmean, 0),
    ("webhook deliveries pending", "webhook_pending", statistics.fmean, 0),
    ("the last prune, s", "prune_s", statistics.fmean, 0),
)


def make_table(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table: each measure at the marks, and last against first quarter after a warm-up."""
    end = samples[-1]["second"]
    marks = [minutes * 60.0 for minutes in _MARKS_MINUTES if minutes * 60 <= end + 60]
    if not marks or end - marks[-1] > _SMOOTHED_SECONDS:
        marks.append(end)
    after = [one for one in samples if one["second"] >= min(_WARM_UP_SECONDS, end / 4)]
    quarter = max(1, len(after) // 4)
    heads = [f"{int(mark // 3600)}:{int(mark % 3600 // 60):02d}" for mark in marks]
    lines = [f"| | {' | '.join(heads)} | last quarter : first |", "|---|" + "--:|" * (len(marks) + 1)]
    for title, name, fold, digits in _ROWS:
        cells = []
        for mark in marks:
            near = [one[name] for one in samples if mark - _SMOOTHED_SECONDS < one["second"] <= mark + 60]
            cells.append(f"{fold(near):,.{digits}f}" if near else "")
        first, last = (statistics.fmean(one[name] for one in part) for part in (after[:quarter], after[-quarter:]))
        ratio = f"{last / first:.2f}" if first else ("0 : 0" if not last else f"{last:,.{digits}f} : 0")
        lines.append(f"| {title} | {' | '.join(cells)} | {ratio} |")
    errors, warnings = (sum(one[name] for one in samples) for name in ("errors", "log_warnings"))
    lines += ["", f"Failed pushes: {errors}. Warnings and errors in the log: {warnings}."]
    return lines


def describe(pace: Pace) -> str:
    """Return what the load was, for above the table."""
    return (
        f"{pace.rate:,.0f} pushes/s, evenly, over {CLIENTS} kept connections: receipts, a twelfth of failures, 5 % "
        "copies, 2.5 % replies, 0.5 % that cannot be read. A tenth of the sends is recorded after its receipt. Beside: "
        "records of sends, five questions a second to the API and a look-up a second in the console, an export every "
        f"{pace.export_every:.0f} s, `status` every {pace.status_every:.0f} s, a webhook of {' and '.join(pace.events)}"
        f" whose endpoint fails for {pace.outage_seconds:.0f} s of {pace.outage_every:.0f}, and a prune every "
        f"{pace.prune_every:.0f} s of what is older than {pace.keep_seconds / 60:.0f} minutes (retention is in days: "
        "only the cutoff is the bench's own). Each cell: the mean of the five minutes before, of the slowest and the "
        "spool the greatest. The ratio: means of the last and the first quarter after 15 minutes. The load, the server "
        "and PostgreSQL share the cores."
    )
