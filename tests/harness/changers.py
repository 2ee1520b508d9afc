"""Threads that change a few messages in every way at once, some of them with commits that come late."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Self

from receiver.messages import journal
from receiver.messages.recording import record_sent, record_verified
from tests.harness.factories import NOON, make_push, make_send

if TYPE_CHECKING:
    import sqlalchemy as sa

    from receiver.db.engine import Database

_MOBILE = "15080921090"
_MESSAGES = 40
_LATE_SECONDS = 0.03


class Changers:
    """Change messages, from entering the context to leaving it. Not projected, and not stamped."""

    def __init__(self, database: Database, count: int = 5) -> None:
        self.failures: list[BaseException] = []
        self._database = database
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(seed),)) for seed in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        kinds = (self._push, self._record, self._use)
        try:
            while not self._stopping.is_set():
                chance.choice(kinds)(chance, [str(chance.randrange(_MESSAGES)) for _ in range(3)])
        except BaseException as error:  # noqa: BLE001  (told to the test)
            self.failures.append(error)

    def _push(self, chance: random.Random, task_ids: list[str]) -> None:
        content = str(chance.random()) if chance.random() < 0.3 else None
        mobile = _MOBILE if chance.random() < 0.8 else "150****1090"
        journal.append(
            self._database,
            [make_push(task_id=task_ids[0], mobile=mobile, content=content, second=chance.randrange(9))],
        )

    def _record(self, chance: random.Random, task_ids: list[str]) -> None:
        sends = [make_send(task_id=task_id, template_id="1") for task_id in task_ids]

        def save(connection: sa.Connection) -> None:
            record_sent(connection, sends, recorded_at=NOON)
            if self._database.postgresql:  # SQLite has one writer: it would only stop the others
                time.sleep(chance.random() * _LATE_SECONDS)

        self._database.write(save)

    def _use(self, chance: random.Random, task_ids: list[str]) -> None:
        used_at = NOON - timedelta(seconds=chance.randrange(1000))
        self._database.write(
            partial(record_verified, account="default", task_id=task_ids[0], mobile=_MOBILE, verified_at=used_at)
        )
