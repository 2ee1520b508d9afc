"""gunicorn as `receiver serve` runs it: tuned, and safe for secrets in paths."""

from __future__ import annotations

import sys
from typing import Any

import gunicorn
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import message

from receiver.config import Settings, address_text, load_settings
from receiver.core import SettingsError
from receiver.observability import configure_logging, get_logger, open_stderr
from receiver.runtime import Runtime
from receiver.server.arbiter import ReceiverArbiter
from receiver.server.framing import REQUEST_LINE_MAX_BYTES, TARGET_INVALID
from receiver.server.limits import raise_open_files
from receiver.server.loading import Applications
from receiver.server.multiprocess_metrics import MultiprocessMetrics
from receiver.server.tls import ServedCertificate

_log = get_logger(__name__)

THREADS = 64
# Our worker uses internals of gunicorn's threaded worker; tests cover these versions.
_SUPPORTED_GUNICORN = (27,)


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Passes every log record to the root logger, which redacts."""

    def setup(self, cfg: Any) -> None:
        """Remove gunicorn's own handlers."""
        self.cfg = cfg
        self._access_log_enabled = False
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`receiver serve`: gunicorn with this project's worker and settings.

    Raises SettingsError if the certificate cannot be used.
    """

    def __init__(self, settings: Settings, *, workers: int) -> None:
        self.settings = settings
        self.certificate: ServedCertificate | None = None  # shared by the workers: created before the fork
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificate = ServedCertificate(settings.tls_cert, settings.tls_key)
        binds = (settings.bind, settings.internal_bind, settings.send_proxy_bind)
        self._binds = [address_text(bind) for bind in binds if bind is not None]
        self._workers = workers
        self._runtime: Runtime | None = None
        self._metrics: MultiprocessMetrics  # created in `run`: a refused start leaves no files
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        message.MAX_REQUEST_LINE = REQUEST_LINE_MAX_BYTES
        message.RFC9112_TARGET_INVALID = TARGET_INVALID
        for name, value in {
            "bind": self._binds,
            "workers": self._workers,
            "worker_class": _worker_class(tls=self.certificate is not None),
            "logger_class": _Logger,
            "threads": THREADS,
            "backlog": 2048,
            "keepalive": 75,
            "timeout": 60,  # a heartbeat of the accepting thread, not a limit on requests
            "graceful_timeout": 30,
            "limit_request_line": REQUEST_LINE_MAX_BYTES,
            "sendfile": False,  # it would block the thread on a slow reader
            "control_socket_disable": True,  # all gunicorn processes of a user share its default path
            "forwarded_allow_ips": "",  # RECEIVER_TRUSTED_PROXIES is the only setting for proxies
            "pre_fork": self._assign_slot,
            "post_fork": lambda _server, worker: self._metrics.start_counting(worker.slot),
            "child_exit": lambda _server, worker: self._metrics.release_slot(worker.slot),
            "worker_exit": lambda _server, _worker: self._stop(),
        }.items():
            self.cfg.set(name, value)
        if self.certificate is not None:
            # With it gunicorn sets the right scheme; our worker does the handshake.
            self.cfg.set("certfile", str(self.settings.tls_cert))

    def reload(self) -> None:
        """Warn about changed settings: a reload replaces the workers, and settings stay as they were at the start.

        gunicorn would read its configuration again, close the old listeners first, and stop if a new listener or the
        certificate is not available.
        """
        try:
            new = load_settings()
        except (SettingsError, OSError) as error:
            _log.warning("the changed settings are invalid; still serving with the old ones", reason=str(error))
            return
        for name in ("bind", "internal_bind", "send_proxy_bind"):
            if getattr(new, name) != getattr(self.settings, name):
                setting = f"RECEIVER_{name.upper()}"
                _log.warning("a listen address has changed; restart to apply it", setting=setting)

    def run(self) -> None:
        """Serve until stopped. If an address cannot be bound, log the reason and exit."""
        sys.stderr = open_stderr()
        raise_open_files()
        self._metrics = MultiprocessMetrics(self.settings.data_dir)
        try:
            ReceiverArbiter(self).run()
        finally:
            self._metrics.close()  # only the master has an effect here; workers also reach this line

    def load(self) -> Applications:
        """Return what the worker serves."""
        configure_logging(self.settings.log_level, form=self.settings.log_format)
        if self.certificate is not None:
            self.certificate.reload_if_changed(at_once=True)  # the master may have loaded it long before the fork
            self.certificate.publish_expiry()
        self._runtime = Runtime(self.settings)
        self._runtime.start()
        return Applications(self._runtime)

    def _assign_slot(self, server: Any, worker: Any) -> None:
        worker.slot = self._metrics.assign_slot({other.slot for other in server.WORKERS.values()})

    def _stop(self) -> None:
        if self._runtime is not None:
            self._runtime.stop()


def _worker_class(*, tls: bool) -> str:
    if gunicorn.version_info[: len(_SUPPORTED_GUNICORN)] == _SUPPORTED_GUNICORN:
        return "receiver.server.worker.Worker"
    if tls:
        raise SettingsError(f"RECEIVER_TLS_CERT: gunicorn {gunicorn.__version__} is not supported; install gunicorn 27")
    _log.warning("unsupported gunicorn version: fast path disabled", version=gunicorn.__version__)
    return "gthread"
