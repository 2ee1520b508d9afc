"""API and console are loaded by the first request for them: pushes, probes and metrics do without."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from receiver.server import loading
from receiver.server.loading import Applications, LoadedLater
from receiver.web import RUNTIME
from tests.web.console.staff import one_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import WSGIApplication

    from receiver.runtime import Runtime


def _app(answer: bytes) -> Callable[[Any, Any], Iterable[bytes]]:
    return lambda _environ, _start_response: [answer]


def _start_response(*_given: Any) -> Any:
    return None


def test_requests_that_come_together_load_it_once() -> None:
    together = threading.Barrier(4)
    loads = []

    def load() -> WSGIApplication:
        loads.append(1)
        return _app(b"loaded")

    app = LoadedLater(load)

    def ask(_number: int) -> list[bytes]:
        together.wait(10)
        return list(app({}, _start_response))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [[b"loaded"]] * 4
    assert loads == [1]


def test_one_that_cannot_be_loaded_fails_its_request_and_is_tried_again() -> None:
    given: list[Exception | WSGIApplication] = [OSError("no file descriptor left"), _app(b"loaded")]

    def load() -> WSGIApplication:
        found = given.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    app = LoadedLater(load)
    with pytest.raises(OSError, match="no file descriptor"):
        app({}, _start_response)
    assert list(app({}, _start_response)) == [b"loaded"]


@one_database
def test_pushes_probes_and_metrics_load_no_console(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str) -> Callable[[Runtime], WSGIApplication]:
        return lambda _runtime: loaded.append(name) or _app(name.encode())  # type: ignore[func-returns-value]

    monkeypatch.setattr(loading, "_load_monitored", load("monitored"))
    monkeypatch.setattr(loading, "_load_whole", load("whole"))
    applications = Applications(runtime)
    assert applications.extensions[RUNTIME] is runtime

    def ask(path: str) -> bytes:
        return b"".join(applications({"PATH_INFO": path}, _start_response))

    assert {ask(path) for path in ("/healthz", "/readyz", "/metrics", "/push/secret", "/PUSH/secret/report")} == {
        b"monitored"
    }
    assert loaded == ["monitored"]
    assert {ask(path) for path in ("/", "/console/", "/api/v1/messages", "/healthz/deeper")} == {b"whole"}
    assert loaded == ["monitored", "whole"]
