"""`python -m tests.bench.telling`: what the counting and the logging of a push cost, in microseconds of processor time.

The calls of one turn of the lane's loop and of one batch of the committer, by pushes a turn; the log goes to standard
error: `2>/dev/null`.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import values

from receiver.config import Settings
from receiver.core import Outcome, Push, Unreadable, new_id
from receiver.intake import Acknowledged
from receiver.observability import configure_logging, metrics
from receiver.web.access_log import PushLog

if TYPE_CHECKING:
    from collections.abc import Callable

_PUSHES = 38_400


def main() -> None:
    """Measure and print."""
    configure_logging()
    settings = Settings(data_dir=Path(), database_url="sqlite://", push_tokens=())
    push = Push(
        id=new_id(),
        account="default",
        endpoint=None,
        method="POST",
        query=b"",
        body=b"x" * 80,
        content_type=None,
        remote_addr="127.0.0.1",
        received_at=datetime.now(UTC),
        reading=Unreadable(error=""),
    )
    kept = Acknowledged(push, Outcome.ACCEPTED)
    for turn in (1, 8, 32):
        took = [0.002 + number / 20_000 for number in range(turn)]
        print(f"{turn} a turn: counted, alone {_cost(partial(_count, took), turn):.1f} µs a push")
    log = PushLog(settings)
    cost = _cost(lambda: log.add([(kept, None, 0.002)] * 32), 32)
    print(f"32 a turn: logged {cost:.1f} µs a push")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        values.ValueClass = values.MultiProcessValue(lambda: 0)  # type: ignore[no-untyped-call]
        importlib.reload(metrics)
        for turn in (1, 8, 32):
            took = [0.002 + number / 20_000 for number in range(turn)]
            print(f"{turn} a turn: counted, with others {_cost(partial(_count, took), turn):.1f} µs a push")


def _count(took: list[float]) -> None:
    metrics.ACK_SECONDS.observe_all(took)
    metrics.LANE_PUSHES.inc(len(took))
    metrics.QUEUE_DEPTH.set(0)
    metrics.BATCH_SECONDS.observe(0.01)
    metrics.BATCH_PUSHES.observe(len(took))
    metrics.LAST_PUSH.set(1.0)
    metrics.PUSHES.labels("accepted").inc(len(took))
    metrics.RECEIPT_DELAY_SECONDS.observe_all(took)


def _cost(call: Callable[[], None], turn: int) -> float:
    """Give the least processor time of five rounds, in microseconds a push; threads that it starts count too."""
    rounds = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(_PUSHES // turn // 5):
            call()
        time.sleep(0.25)  # for what is written apart
        rounds.append((time.process_time() - begun) / (_PUSHES // 5) * 1e6)
    return min(rounds)


if __name__ == "__main__":
    main()
