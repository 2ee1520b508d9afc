"""The soak in seconds: what goes on beside the pushes goes on, each is accounted for, and the samples say something.

The hours are in deploy/BENCHMARKS.md, by `python -m tests.bench.soak`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.bench.soak import soak
from tests.bench.soak_load import make_trial
from tests.bench.soak_samples import make_table

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS, _RATE = 8.0, 50.0


def test_trial_accounts_for_each_push_and_samples_what_could_grow(postgres_database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    verdict = soak(postgres_database_url.replace("+psycopg", ""), make_trial(_SECONDS, _RATE), path)
    assert verdict.good, verdict
    assert verdict.acknowledged
    assert verdict.pruned
    assert verdict.beside["pruned messages"]
    assert verdict.hooked
    for work in ("sends", "questions", "console look-ups", "exports", "status", "prunes", "outages"):
        assert verdict.beside.get(work), (work, verdict)
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(samples) > 2
    measured = ("acks_per_second", "p50_ms", "p99_ms", "rss_mb", "pss_mb", "files", "threads", "sessions", "wal_mb")
    for name in (*measured, "database_mb", "data_files", "log_mb", "read_p99_ms"):
        assert all(sample[name] > 0 for sample in samples), name
    assert "| RSS of all processes, MB | " in "\n".join(make_table(samples))


def _sample(second: float, **changed: float) -> dict[str, Any]:
    names = (
        "acks_per_second", "p50_ms", "p99_ms", "slowest_ms", "read_p99_ms", "rss_mb", "pss_mb", "largest_mb", "files",
        "threads", "sessions", "wal_mb", "database_mb", "journal_rows", "data_files", "data_mb", "projection_lag_s",
        "spool_records", "webhook_queue", "webhook_pending", "prune_s", "errors", "log_warnings",
    )  # fmt: skip
    return {**dict.fromkeys(names, 8.0), "second": second, **changed}


def test_table_shows_what_grows_and_leaves_the_warm_up_out() -> None:
    whole = [_sample(second, files=100 + max(0, second - 900) / 63) for second in range(30, 7201, 30)]
    lines = make_table(whole)
    assert lines[0] == "| | 0:15 | 0:30 | 1:00 | 1:30 | 2:00 | last quarter : first |"
    assert "| threads | 8 | 8 | 8 | 8 | 8 | 1.00 |" in lines
    assert "| open files | 100 | 113 | 141 | 170 | 198 | 1.68 |" in lines


def test_table_of_a_run_that_was_broken_off_has_the_marks_it_reached_and_its_end() -> None:
    lines = make_table([_sample(second, spool_records=0) for second in range(30, 2521, 30)])
    assert lines[0] == "| | 0:15 | 0:30 | 0:42 | last quarter : first |"
    assert "| records in the spool | 0 | 0 | 0 | 0 : 0 |" in lines
