"""What one process runs on: settings, database, gate and committer, put together and taken apart in order."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from receiver.audit import Checkpoint, Checkpoints, Shipper, log
from receiver.auth import api_keys
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, ReceiverError, find_fault, parse_address
from receiver.db import set_aside, version
from receiver.db.availability import CircuitBreaker
from receiver.db.encryption import ColumnEncryption
from receiver.db.engine import Connection, Database
from receiver.db.replica import Replica
from receiver.intake import SPOOL_DIR, Admission, BatchWriter, Drainer, NewUses, SecretUse, Spool, secret_usage
from receiver.messages import EventHorizon, projection, queries
from receiver.observability import tracing
from receiver.platform.client import PlatformClient
from receiver.reporting import rollup
from receiver.sending.recorder import Recorder
from receiver.sending.service import Sender
from receiver.webhooks.service import Webhooks
from receiver.webhooks.worker import WebhookWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from receiver.config import Settings

T = TypeVar("T")


# An acknowledgement is promised within 700 ms at the 99th percentile: the spool has the rest.
INTAKE_PATIENCE_SECONDS = 0.4
_INTAKE_CACHE_KIB = 65536  # of the one connection that writes pushes: the indexes that each of them goes through
_EXPORT_PATIENCE_SECONDS = 3600.0
_USES_SECONDS = 1.0  # for counts of uses: whoever keeps them has pushes to save from the spool


class Runtime:
    """The parts that a process needs to take pushes and answer questions.

    Nothing connects and no thread starts before `start`, so a runtime may be made before a fork.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.encryption = ColumnEncryption(settings.encryption_keys)
        self.database = Database(settings.database_url, sealing=self.encryption)
        # For pushes alone: its connections are never lent to anyone who holds them, and it gives up early.
        self.intake_database = Database(
            settings.database_url,
            patience_seconds=INTAKE_PATIENCE_SECONDS,
            sealing=self.encryption,
            cache_kib=_INTAKE_CACHE_KIB,
        )
        self._export_database: Database | None = None
        self.replica: Replica | None = None
        if settings.read_database_url:
            self.replica = Replica(
                settings.read_database_url,
                primary=settings.database_url,
                max_lag_seconds=settings.replica_max_lag.total_seconds(),
                sealing=self.encryption,
            )
        self.availability = CircuitBreaker()
        self.admission = Admission(settings)
        self.spool = self._spool_in(settings.data_dir / SPOOL_DIR)
        save = partial(projection.save_pushes_in, self.intake_database)
        self.webhook_worker = WebhookWorker(
            self.database,
            link=self.availability,
            allow=settings.webhooks_allow,
            clock=self.clock,
            busy=lambda: self.batch_writer.busy,
        )
        self.webhooks = Webhooks(
            self.database,
            accounts=settings.accounts,
            allow=settings.webhooks_allow,
            ask=self.ask,
            audit=self.audit,
            now=self.now,
            wake=self.webhook_worker.look,
        )
        self.batch_writer = BatchWriter(save, link=self.availability, spool=self.spool, tell=self.webhook_worker.nudge)
        self.recorder = Recorder(self.database, link=self.availability, spool=self.spool)
        self.sender = Sender(settings, self.recorder, PlatformClient(settings.platform_url))
        self._drainer = self._drainer_of(self.spool)
        self.horizon = EventHorizon(self.database)
        self.checkpoints = Checkpoints(settings.data_dir)
        self._shipper: Shipper | None = None
        if settings.audit_syslog:
            address = parse_address(settings.audit_syslog)
            self._shipper = Shipper(self.database, address, require_database=self.require_database)
        self._shared_secrets: dict[str, bytes] = {}
        self._starting = threading.Lock()
        self._started_in: int | None = None  # the process whose threads run

    def make_ready(self) -> None:
        """Reach the database and see that it can be used; the embedded one is brought up to date.

        Raises StoreUnavailable or StoreUnfit.
        """
        if (fault := find_fault(self.settings.database_files)) is not None:
            raise DatabaseUnavailable(fault)
        # It was away, and may be another server now: nobody is to find that out by a connection from before.
        self.database.drop_connections()
        self.encryption.forget()
        self.intake_database.connect()
        try:
            version.require_schema(self.intake_database)
        except DatabaseMisconfigured:
            if not self.settings.embedded:
                raise
            self._migrate()
        self.intake_database.require_writable()

    def _migrate(self) -> None:
        # A good part of what a command takes to start, and needed after an update only.
        from receiver.db import migrate  # noqa: PLC0415

        migrate.upgrade(self.database)

    def drain(self, directory: Path) -> int:
        """Save what waits in a spool directory that may be another node's; give the number of records.

        Raises StoreUnavailable or StoreUnfit.
        """
        spool = self._spool_in(directory)
        try:
            return self._drainer_of(spool).drain()
        finally:
            spool.close()

    def _spool_in(self, directory: Path) -> Spool:
        return Spool(directory, max_bytes=self.settings.spool_max_bytes, ring=self.encryption.ring)

    def _drainer_of(self, spool: Spool) -> Drainer:
        return Drainer(
            spool,
            link=self.availability,
            make_ready=self.make_ready,
            read_again=self.admission.read_spooled,
            save=partial(projection.save_pushes_in, self.database),
            record=self.recorder.record_spooled,
            confirm=self.database.require_durable,
            tidy=self._tidy,
        )

    def _tidy(self) -> None:
        self.admission.tidy()
        try:
            self.intake_database.require_file()
        except DatabaseUnavailable as error:  # pushes go to the spool until it is back
            self.availability.mark_down(str(error))
            return
        with self.database.reading() as connection:
            outdated = self.encryption.is_outdated(connection)
            self.admission.note_newest(queries.find_newest_push_at(connection))
        if outdated:  # nobody has been refused for it here, but what is asked would be answered wrong
            self.availability.mark_down("the database's encryption was changed")
            return
        set_aside.save_noted(self.database, self.now())
        self.recorder.end_cut_off()
        if self.database.postgresql:
            self.database.write(rollup.fold)
        self.admission.secrets.keep_uses(self._save_uses)

    def _save_uses(self, uses: Sequence[NewUses]) -> None:
        self.database.write(
            lambda connection: secret_usage.save_uses(connection, uses, now=self.now()), patience_seconds=_USES_SECONDS
        )

    def list_secret_uses(self) -> list[SecretUse]:
        """Say of each push secret when it was last used, up to a minute late. Raises StoreUnavailable or StoreUnfit."""
        return self.ask(lambda connection: secret_usage.find_uses(connection, self.settings.push_tokens))

    def start(self) -> None:
        """Begin to keep pushes in this process; nothing happens if it has begun."""
        if self._started_in == os.getpid():
            return
        with self._starting:
            if self._started_in == os.getpid():
                return
            self.batch_writer.start()
            self._drainer.start()
            self.webhook_worker.start()
            if self._shipper is not None:
                self._shipper.start()
            tracing.start()
            self._started_in = os.getpid()

    def stop(self) -> None:
        """Keep what was taken, then close."""
        self.sender.close()
        if self._started_in == os.getpid():
            self.batch_writer.stop()
            self._drainer.stop()
            if self.availability.up:
                with suppress(ReceiverError):  # they are numbers: no stop waits for them, or fails
                    self.admission.secrets.keep_uses(self._save_uses, at_once=True)
            self.webhook_worker.stop()
            if self._shipper is not None:
                self._shipper.stop()
            tracing.stop()
        if self.availability.up or not self.availability.known:  # what a command has found, too; no stop waits for it
            with suppress(ReceiverError):
                set_aside.save_noted(self.database, self.now(), patience_seconds=_USES_SECONDS)
        self.spool.close()
        self.database.close()
        if self._export_database is not None:
            self._export_database.close()
        self.intake_database.close()
        if self.replica is not None:
            self.replica.close()

    def require_database(self) -> None:
        """Raise StoreUnavailable at once where the database is known to be away, instead of waiting for it again."""
        if self.availability.known and not self.availability.up:
            raise DatabaseUnavailable(f"not now: {self.availability.reason}")

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)

    def clock(self, now: datetime | None = None) -> queries.Clock:
        """What counts as late at that moment, at present by default."""
        return queries.Clock(
            now=now or self.now(),
            late_after=self.settings.late_after,
            no_receipt_after=self.settings.no_receipt_after,
        )

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Answer one question from the database."""
        with self._noticing(), self.database.reading() as connection:
            return question(connection)

    def browse(self, question: Callable[[Connection], T]) -> tuple[T, float | None]:
        """Answer one question that does not need the newest rows, from the replica where there is one in time.

        Beside the answer: how many seconds old it may be; None: it is the database's own. Nothing that has to see what
        was done just before is asked here: keys, sessions, a send and its Idempotency-Key, what became of one message.
        """
        self.require_database()
        if self.replica is not None:
            try:
                with self.replica.reading() as (connection, lag):
                    return question(connection), lag
            except (DatabaseUnavailable, DatabaseMisconfigured):
                pass  # it may also have cancelled the question, to go on replaying
        return self.ask(question), None

    @contextmanager
    def exporting(self) -> Iterator[Connection]:
        """Open a connection that may be read from for an hour, apart from those that answer questions.

        To the replica where there is one in time.
        """
        if self.replica is not None:
            with ExitStack() as stack:
                try:
                    connection, _ = stack.enter_context(self.replica.reading(for_long=True))
                except (DatabaseUnavailable, DatabaseMisconfigured):
                    pass
                else:
                    yield connection
                    return
        with self._starting:
            if self._export_database is None:
                self._export_database = Database(
                    self.settings.database_url, patience_seconds=_EXPORT_PATIENCE_SECONDS, sealing=self.encryption
                )
        with self._noticing(), self._export_database.reading() as connection:
            yield connection

    def shared_secret(self, name: str) -> bytes:
        """Return a secret that all nodes share, asked of the database once."""
        if name not in self._shared_secrets:
            with self._noticing():
                found = self.database.write(lambda connection: api_keys.shared_secret(connection, name))
            self._shared_secrets[name] = found
        return self._shared_secrets[name]

    def audit(self, actor: str, action: str, *, mobile: str | None = None, **detail: Any) -> None:
        """Note who did what, durably, before the answer goes out. A number goes in as a keyed hash."""
        self.audited(lambda _: None, actor, action, mobile=mobile, **detail)

    def audited(
        self, work: Callable[[Connection], T], actor: str, action: str, *, mobile: str | None = None, **detail: Any
    ) -> T:
        """Change something and note who did it: in one transaction, both or neither."""
        entry = {name: value for name, value in detail.items() if value is not None}
        if mobile is not None:
            entry["mobile_hmac"] = self.mobile_hmac(mobile)

        def both(connection: Connection) -> tuple[T, log.Link]:
            result = work(connection)
            return result, log.write_audit(connection, at=self.now(), actor=actor, action=action, detail=entry)

        with self._noticing():
            result, link = self.database.write(both)
        self.checkpoints.note(Checkpoint(position=link.position, at=link.at, hash=link.hash))
        return result

    def mobile_hmac(self, mobile: str) -> str:
        """Return what stands in the audit for a number: nobody can tell it from that without the database's secret."""
        return hmac.new(self.shared_secret("audit"), mobile.encode(), hashlib.sha256).hexdigest()

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Go to the database unless it is known to be away, and let everybody know where it turns out to be."""
        self.require_database()
        try:
            yield
        except DatabaseUnavailable as error:
            if self.availability.up:
                self.availability.mark_down(str(error))
            raise
