"""gunicorn as `receiver serve` runs it: tuned, and made safe for secrets in paths."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gunicorn
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import message

from receiver.app import create_app
from receiver.config import Settings, address_text, load_settings
from receiver.core import SettingsError
from receiver.observability import configure_logging, get_logger, open_stderr
from receiver.runtime import Runtime
from receiver.server.arbiter import ReceiverArbiter
from receiver.server.framing import REQUEST_LINE_MAX_BYTES, TARGET_INVALID
from receiver.server.limits import raise_open_files
from receiver.server.multiprocess_metrics import MultiprocessMetrics
from receiver.server.tls import ServedCertificate
from receiver.web.listeners import Listeners
from receiver.web.mounted import Mounted

if TYPE_CHECKING:
    from flask import Flask


_log = get_logger(__name__)

THREADS = 64
# Our worker leans on the inside of gunicorn's threaded one; tests hold it to these versions.
_FITTING_GUNICORN = (27,)


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Leaves every log to the root logger, which redacts."""

    def setup(self, cfg: Any) -> None:
        """Take no handler of its own."""
        self.cfg = cfg
        self._access_log_enabled = False
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`receiver serve`: gunicorn with this project's worker and settings.

    Raises SettingsError where the certificate cannot be served.
    """

    def __init__(self, settings: Settings, *, workers: int) -> None:
        self.settings = settings
        self.certificate: ServedCertificate | None = None  # shared by the workers: made before the fork
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificate = ServedCertificate(settings.tls_cert, settings.tls_key)
        binds = (settings.bind, settings.internal_bind, settings.send_proxy_bind)
        self._binds = [address_text(bind) for bind in binds if bind is not None]
        self._workers = workers
        self._runtime: Runtime | None = None
        self._counts: MultiprocessMetrics  # made where it runs: a start that is refused leaves nothing
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn is to do."""
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
            "sendfile": False,  # it would wait for its reader in the thread
            "control_socket_disable": True,  # its default place is shared by every gunicorn of the user
            "forwarded_allow_ips": "",  # proxies are told by RECEIVER_TRUSTED_PROXIES, in one place
            "pre_fork": self._give_slot,
            "post_fork": lambda _server, worker: self._counts.begin(worker.slot),
            "child_exit": lambda _server, worker: self._counts.leave_slot(worker.slot),
            "worker_exit": lambda _server, _worker: self._stop(),
        }.items():
            self.cfg.set(name, value)
        if self.certificate is not None:
            # What gunicorn then takes for granted, such as the scheme, is right; the handshake is our worker's.
            self.cfg.set("certfile", str(self.settings.tls_cert))

    def reload(self) -> None:
        """Say what a reload does not do: it replaces the workers, and all stays set as it was at the start.

        gunicorn would read its configuration again, close the old listeners first, and end where a new one or the
        certificate cannot be had.
        """
        try:
            new = load_settings()
        except (SettingsError, OSError) as error:
            _log.warning("settings do not fit any more: serves on with those of the start", reason=str(error))
            return
        for name in ("bind", "internal_bind", "send_proxy_bind"):
            if getattr(new, name) != getattr(self.settings, name):
                setting = f"RECEIVER_{name.upper()}"
                _log.warning("another address is set: serves on at the old one until a restart", setting=setting)

    def run(self) -> None:
        """Serve until stopped. A bind that is impossible ends the process, with its reason in the log."""
        sys.stderr = open_stderr()
        raise_open_files()
        self._counts = MultiprocessMetrics(self.settings.data_dir)
        try:
            ReceiverArbiter(self).run()
        finally:
            self._counts.close()  # in the master; in a worker, which comes by here too, nothing happens

    def load(self) -> Flask:
        """Make the application, in the worker."""
        configure_logging(self.settings.log_level, form=self.settings.log_format)
        if self.certificate is not None:
            self.certificate.look(at_once=True)  # the master may have forked long after it loaded it
            self.certificate.tell()
        self._runtime = Runtime(self.settings)
        self._runtime.start()
        app = create_app(self._runtime)
        app.wsgi_app = Mounted(  # type: ignore[method-assign]
            Listeners(app.wsgi_app, self._runtime), self.settings
        )
        return app

    def _give_slot(self, server: Any, worker: Any) -> None:
        worker.slot = self._counts.take_slot({other.slot for other in server.WORKERS.values()})

    def _stop(self) -> None:
        if self._runtime is not None:
            self._runtime.stop()


def _worker_class(*, tls: bool) -> str:
    if gunicorn.version_info[: len(_FITTING_GUNICORN)] == _FITTING_GUNICORN:
        return "receiver.server.worker.Worker"
    if tls:
        raise SettingsError(f"RECEIVER_TLS_CERT: gunicorn {gunicorn.__version__} does not fit; install gunicorn 27")
    _log.warning("this gunicorn is not one the push lane fits: pushes go through Flask", version=gunicorn.__version__)
    return "gthread"
