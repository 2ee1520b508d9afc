"""Detects when the database is back, saves spooled records, and runs periodic housekeeping."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from receiver.core import DatabaseMisconfigured, Push, ReceiverError
from receiver.db.encryption import DecryptionError
from receiver.db.engine import RowRejected
from receiver.intake.batch_writer import append_isolating_rejects
from receiver.intake.spool_records import Damage, Record, SpooledAttempt, SpooledSends
from receiver.observability import get_logger, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from receiver.db.availability import CircuitBreaker
    from receiver.intake.spool import Spool

_log = get_logger(__name__)

_BATCH_MAX_RECORDS = 500
_SENDS_AT_ONCE = 50  # per transaction: several statements each, while pushes wait for SQLite's only writer
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_POLL_SECONDS = 2.0  # for spool files of dead processes
_YIELD_SHARE = 0.25  # pause after a batch, as a share of its time, for live pushes


class Drainer:
    """Saves spool files, oldest first, while the database is available. One thread per process."""

    def __init__(
        self,
        spool: Spool,
        *,
        availability: CircuitBreaker,
        make_ready: Callable[[], None],
        read_again: Callable[[Push], Push],
        append: Callable[[Sequence[Push]], None],
        record_sends: Callable[[Sequence[SpooledSends | SpooledAttempt]], None],
        require_durable: Callable[[], None],
        housekeeping: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._availability = availability
        self._make_ready = make_ready  # raises DatabaseUnavailable or DatabaseMisconfigured
        self._read_again = read_again
        self._append = append
        self._record_sends = record_sends
        self._require_durable = require_durable  # a file is removed only after this returns
        self._housekeeping = housekeeping  # called every few seconds while the database is available
        self._undecryptable: set[Path] = set()  # files with a missing key, already logged
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it after any fork."""
        self._thread = threading.Thread(target=self._run, name="drainer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current batch; the next process saves the rest."""
        self._stopping.set()
        self._availability.changed.set()
        if self._thread is not None:
            self._thread.join(5)

    def drain(self) -> int:
        """Save every spool file and return the number of records.

        Raises DatabaseUnavailable, DatabaseMisconfigured, or DecryptionError once all other files are saved.
        """
        saved = 0
        undecryptable: DecryptionError | None = None
        for path in self._spool.list_waiting():
            try:
                saved += self._drain_file(path)
            except DecryptionError as error:  # it stays until its key is there; the other files go on
                undecryptable = error
                if path not in self._undecryptable:
                    self._undecryptable.add(path)
                    _log.error("spool file not saved", file=path.name, reason=str(error))
            if self._stopping.is_set():
                break
        if undecryptable is not None:
            raise undecryptable
        return saved

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._availability.changed.clear()
            try:
                if not self._availability.up:
                    self._make_ready()
                    self._availability.mark_up()
                    if failures:
                        _log.info("database is back")
                failures = 0
                if not self._spool.empty:
                    self._drain_decryptable()
                self._run_housekeeping()
            except Exception as error:  # noqa: BLE001  (edge of the thread: it must go on)
                reason = str(error) if isinstance(error, ReceiverError) else type(error).__name__
                if not failures:
                    _log.warning("database unavailable", reason=reason)
                self._availability.mark_down(reason)
                self._stopping.wait(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if self._availability.up:
                self._availability.changed.wait(_POLL_SECONDS)

    def _drain_decryptable(self) -> None:
        with suppress(DecryptionError):  # already logged
            self.drain()

    def _run_housekeeping(self) -> None:
        try:
            self._housekeeping()
        except ReceiverError as error:  # retried later; no push depends on it
            _log.warning("housekeeping failed", reason=str(error))

    def _drain_file(self, path: Path) -> int:
        saved, damaged = 0, False
        batch: list[Record] = []
        for record in _with_end(self._spool.read(path)):
            if isinstance(record, Damage):
                damaged = True
                _log.error("part of a spool file is unreadable", file=path.name, **asdict(record))
            elif record is not None:
                batch.append(record)
            if batch and (record is None or len(batch) >= _BATCH_MAX_RECORDS):
                saved += self._save_batch(batch)
                batch = []
                if self._stopping.is_set() and record is not None:
                    return saved
        self._require_durable()
        self._spool.remove(path, damaged=damaged)
        return saved

    def _save_batch(self, batch: list[Record]) -> int:
        """Save records of any kind; the order of pushes and sends does not matter."""
        begun = time.monotonic()
        pushes = [self._read_again(record) for record in batch if isinstance(record, Push)]
        sends = [record for record in batch if not isinstance(record, Push)]
        try:
            if pushes:
                append_isolating_rejects(self._append, pushes)
            for begin in range(0, len(sends), _SENDS_AT_ONCE):
                self._record_sends(sends[begin : begin + _SENDS_AT_ONCE])
        except RowRejected as error:  # rejected even as unreadable: it stays in its file for the operator
            raise DatabaseMisconfigured(f"the database rejects a spooled record: {error}") from error
        if not self._availability.up:  # another caller with a shorter timeout marked it down
            self._availability.mark_up()
        metrics.DRAINED.inc(len(batch))
        self._stopping.wait((time.monotonic() - begun) * _YIELD_SHARE)
        return len(batch)


def _with_end(records: Iterator[Record | Damage]) -> Iterator[Record | Damage | None]:
    yield from records
    yield None
