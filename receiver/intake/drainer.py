"""Looks after the database's return, and saves from the spool what waits there; tidies up now and then."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from receiver.core import DatabaseMisconfigured, Push, ReceiverError
from receiver.db.encryption import DecryptionError
from receiver.db.engine import StoreRejected
from receiver.intake.batch_writer import save_apart
from receiver.intake.spool_records import Damage, Record, SpooledAttempt, SpooledSends
from receiver.observability import get_logger, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from receiver.db.availability import CircuitBreaker
    from receiver.intake.spool import Spool

_log = get_logger(__name__)

_BATCH_MAX_RECORDS = 500
_SENDS_AT_ONCE = 50  # in one transaction: a handful of statements each, while pushes wait for SQLite's one writer
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_LOOK_SECONDS = 2.0  # for what a dead process has left
_YIELD_SHARE = 0.25  # of a batch's time, left to live pushes after it


class Drainer:
    """Saves a spool's files, oldest first, whenever the database is there. One thread for one process."""

    def __init__(
        self,
        spool: Spool,
        *,
        link: CircuitBreaker,
        make_ready: Callable[[], None],
        read_again: Callable[[Push], Push],
        save: Callable[[Sequence[Push]], None],
        record: Callable[[Sequence[SpooledSends | SpooledAttempt]], None],
        confirm: Callable[[], None],
        tidy: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._link = link
        self._make_ready = make_ready  # raises StoreUnavailable or StoreUnfit
        self._read_again = read_again
        self._save = save
        self._record = record
        self._confirm = confirm  # that what was saved is durable; a file goes only then
        self._tidy = tidy  # called every few seconds while the database is there
        self._unopened: set[Path] = set()  # files of which a record's key is missing, that was said
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; in the process that is to do it, after any fork."""
        self._thread = threading.Thread(target=self._run, name="drainer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the batch under way; what is left waits for the next process."""
        self._stopping.set()
        self._link.changed.set()
        if self._thread is not None:
            self._thread.join(5)

    def drain(self) -> int:
        """Save every file that waits; give the number of records.

        Raises StoreUnavailable, StoreUnfit, or NotOpened once all others are saved.
        """
        saved = 0
        unopened: DecryptionError | None = None
        for path in self._spool.list_waiting():
            try:
                saved += self._drain_file(path)
            except DecryptionError as error:  # it waits for its key, and the others do not wait for it
                unopened = error
                if path not in self._unopened:
                    self._unopened.add(path)
                    _log.error("spool file not saved", file=path.name, reason=str(error))
            if self._stopping.is_set():
                break
        if unopened is not None:
            raise unopened
        return saved

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._link.changed.clear()
            try:
                if not self._link.up:
                    self._make_ready()
                    self._link.mark_up()
                    if failures:
                        _log.info("database is back")
                failures = 0
                if not self._spool.empty:
                    self._drain_what_opens()
                self._tidy_up()
            except Exception as error:  # noqa: BLE001  (the edge of the thread: it has to go on)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                if not failures:
                    _log.warning("database away", reason=reason)
                self._link.mark_down(reason)
                self._stopping.wait(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if self._link.up:
                self._link.changed.wait(_LOOK_SECONDS)

    def _drain_what_opens(self) -> None:
        with suppress(DecryptionError):  # said when it was found
            self.drain()

    def _tidy_up(self) -> None:
        try:
            self._tidy()
        except ReceiverError as error:  # another time: no push waits for it
            _log.warning("not tidied up", reason=str(error))

    def _drain_file(self, path: Path) -> int:
        saved, damaged = 0, False
        batch: list[Record] = []
        for found in _with_end(self._spool.read(path)):
            if isinstance(found, Damage):
                damaged = True
                _log.error("part of a spool file cannot be read", file=path.name, **asdict(found))
            elif found is not None:
                batch.append(found)
            if batch and (found is None or len(batch) >= _BATCH_MAX_RECORDS):
                saved += self._save_batch(batch)
                batch = []
                if self._stopping.is_set() and found is not None:
                    return saved
        self._confirm()
        self._spool.remove(path, damaged=damaged)
        return saved

    def _save_batch(self, batch: list[Record]) -> int:
        """Save records of any kind: pushes and sends end the same in any order."""
        begun = time.monotonic()
        pushes = [self._read_again(record) for record in batch if isinstance(record, Push)]
        sends = [record for record in batch if not isinstance(record, Push)]
        try:
            if pushes:
                save_apart(self._save, pushes)
            for begin in range(0, len(sends), _SENDS_AT_ONCE):
                self._record(sends[begin : begin + _SENDS_AT_ONCE])
        except StoreRejected as error:  # not even as unreadable: an operator has to see it, and it stays in its file
            raise DatabaseMisconfigured(f"a spooled record is refused: {error}") from error
        if not self._link.up:  # it went away meanwhile, for somebody with less patience: it is there
            self._link.mark_up()
        metrics.DRAINED.inc(len(batch))
        self._stopping.wait((time.monotonic() - begun) * _YIELD_SHARE)
        return len(batch)


def _with_end(records: Iterator[Record | Damage]) -> Iterator[Record | Damage | None]:
    yield from records
    yield None
