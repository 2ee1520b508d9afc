"""The services of one process: builds, starts and stops them in order."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from receiver.audit import AuditTrail, Checkpoints, Shipper
from receiver.config import SPOOL_DIR
from receiver.core import DatabaseMisconfigured, DatabaseUnavailable, ReceiverError, find_fault, parse_address
from receiver.db import set_aside, version
from receiver.db.engine import Database
from receiver.db.message_status import keep_ages
from receiver.db.shared_secrets import SharedSecrets
from receiver.intake.admission import Admission
from receiver.intake.batch_writer import BatchWriter
from receiver.intake.drainer import Drainer
from receiver.intake.secret_usage import write_uses
from receiver.intake.spool import Spool
from receiver.messages import journal
from receiver.net.egress_policy import EgressPolicy
from receiver.observability import get_logger, metrics, tracing
from receiver.platform.client import PlatformClient
from receiver.reporting import rollup
from receiver.sending.recorder import Recorder
from receiver.sending.service import Sender
from receiver.store import Store
from receiver.webhooks.service import Webhooks
from receiver.webhooks.worker import WebhookWorker

if TYPE_CHECKING:
    from pathlib import Path

    from receiver.config import Settings

_log = get_logger(__name__)

# Acknowledgements take at most 700 ms at the 99th percentile; after this patience the spool takes over.
INTAKE_PATIENCE_SECONDS = 0.4
_INTAKE_CACHE_KIB = 65536  # for the connection that writes pushes, sized for the indexes that every push touches


class Runtime(Store):
    """The services of a process that accepts pushes and answers queries.

    Opens no connection and starts no thread before `start`, so it can be created before a fork.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # For pushes only: no other code holds its connections, and it times out early.
        self.intake_database = Database(
            settings.database_url,
            patience_seconds=INTAKE_PATIENCE_SECONDS,
            encryption=self.encryption,
            cache_kib=_INTAKE_CACHE_KIB,
        )
        self.admission = Admission(settings)
        self._save_uses = partial(write_uses, self.database, now=self.now)
        self.spool = self._open_spool(settings.data_dir / SPOOL_DIR)
        self.egress_policy = EgressPolicy(settings.webhooks_allow, proxy=settings.webhooks_proxy)
        self.webhook_worker = WebhookWorker(
            self.database,
            availability=self.availability,
            policy=self.egress_policy,
            clock=self.clock,
            is_busy=lambda: self.batch_writer.is_busy or self.projector.is_late,
        )
        secrets = SharedSecrets(self.database, availability=self.availability)
        self.shared_secret = secrets.get
        self.checkpoints = Checkpoints(settings.data_dir)
        self.trail = AuditTrail(
            self.database,
            availability=self.availability,
            secrets=secrets,
            checkpoints=self.checkpoints,
            now=self.now,
        )
        self.audit, self.audited, self.mobile_hmac = self.trail.audit, self.trail.audited, self.trail.mobile_hmac
        self.webhooks = self._make_webhooks()
        self.batch_writer = BatchWriter(
            partial(journal.append, self.intake_database),
            availability=self.availability,
            spool=self.spool,
            projector=self.projector,
        )
        self.recorder = Recorder(
            self.database, availability=self.availability, spool=self.spool, on_recorded=self.projector.nudge
        )
        self.sender = Sender(settings, self.recorder, PlatformClient(settings.platform_url))
        self._drainer = self._make_drainer(self.spool)
        self._shipper: Shipper | None = None
        if settings.audit_syslog:
            address = parse_address(settings.audit_syslog)
            self._shipper = Shipper(self.database, address, require_database=self.require_database)
        self._starting = threading.Lock()
        self._started_in: int | None = None  # id of the process whose threads run

    def _on_availability(self, up: bool) -> None:
        metrics.DATABASE_UP.set(up)

    def _is_busy(self) -> bool:
        return self.batch_writer.is_busy

    def _on_projected(self) -> None:
        self.webhook_worker.nudge()

    def _make_webhooks(self) -> Webhooks:
        return Webhooks(
            self.database,
            accounts=self.settings.accounts,
            no_receipt_after=self.settings.no_receipt_after,
            policy=self.egress_policy,
            ask=self.ask,
            trail=self.trail,
            wake=self.webhook_worker.run_now,
            give_way=self.webhook_worker.give_way,
        )

    def make_ready(self, *, patient: bool = False) -> None:
        """Connect to the database and check that it is usable; migrate the embedded one.

        `patient`: wait for the lock of a busy one as long as a command may, and not only as long as a push.

        Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        database = self.database if patient else self.intake_database
        if (fault := find_fault(self.settings.database_files)) is not None:
            raise DatabaseUnavailable(fault)
        # The database was unavailable and may be another server now: drop the old connections.
        self.database.drop_connections()
        self.encryption.forget()
        database.connect()
        try:
            version.require_schema(database)
        except DatabaseMisconfigured:
            if not self.settings.embedded:
                raise
            self._migrate()
        database.require_writable()
        self.keep_ages()

    def keep_ages(self) -> None:
        """Store for the views from when on this process takes a message as late: the last to start decides."""
        clock = self.clock()
        if self.database.write(lambda connection: keep_ages(connection, clock)):
            ages = {"late_after": str(clock.late_after), "no_receipt_after": str(clock.no_receipt_after)}
            _log.info("the views for SQL take messages as late from the ages of this process on", **ages)

    def _migrate(self) -> None:
        # A slow import, needed only after an update.
        from receiver.db import migrate  # noqa: PLC0415

        migrate.upgrade(self.database)

    def drain(self, directory: Path) -> int:
        """Save the records of a spool directory, also another node's, and return their number.

        Raises DatabaseUnavailable or DatabaseMisconfigured.
        """
        spool = self._open_spool(directory)
        try:
            return self._make_drainer(spool).drain()
        finally:
            spool.close()

    def _open_spool(self, directory: Path) -> Spool:
        return Spool(directory, max_bytes=self.settings.spool_max_bytes, ring=self.encryption.ring)

    def _make_drainer(self, spool: Spool) -> Drainer:
        return Drainer(
            spool,
            availability=self.availability,
            make_ready=self.make_ready,
            read_again=self.admission.read_spooled,
            append=partial(journal.append, self.database),
            record_sends=self.recorder.record_spooled,
            require_durable=self.database.require_durable,
            housekeeping=self._housekeeping,
        )

    def _housekeeping(self) -> None:
        self.admission.log_suppressed()
        try:
            self.intake_database.require_file()
        except DatabaseUnavailable as error:  # pushes go to the spool until the file is back
            self.availability.mark_down(str(error))
            return
        with self.database.reading() as connection:
            outdated = self.encryption.is_outdated(connection)
            self.admission.record_newest_push_at(journal.find_newest_push_at(connection))
        if outdated:  # no push has failed yet, but queries would return wrong data
            self.availability.mark_down("the database's encryption has changed")
            return
        set_aside.save_noted(self.database, self.now())
        self.recorder.end_cut_off()
        if self.database.postgresql:
            self.database.write(rollup.fold)
        self.admission.secrets.flush_uses(self._save_uses)

    def start(self) -> None:
        """Start the threads of this process. Does nothing if they run."""
        if self._started_in == os.getpid():
            return
        with self._starting:
            if self._started_in == os.getpid():
                return
            self.batch_writer.start()
            self._drainer.start()
            self.projector.start()
            self.webhook_worker.start()
            if self._shipper is not None:
                self._shipper.start()
            tracing.start()
            self._started_in = os.getpid()

    def stop(self) -> None:
        """Write the queued pushes, then stop and close everything."""
        self.sender.close()
        if self._started_in == os.getpid():
            self.batch_writer.stop()
            self._drainer.stop()
            if self.availability.up:
                with suppress(ReceiverError):  # only counters: they must not delay or fail the stop
                    self.admission.secrets.flush_uses(self._save_uses, at_once=True)
            self.projector.stop()
            self.webhook_worker.stop()
            if self._shipper is not None:
                self._shipper.stop()
            tracing.stop()
        self.spool.close()
        self.intake_database.close()
        super().stop()
