"""API and console are loaded by the first request for them: pushes, probes and metrics do without."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import receiver.app
from receiver.server.loading import Applications
from receiver.web import RUNTIME
from tests.conftest import SECRET
from tests.web.console.staff import one_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.types import WSGIApplication

    from receiver.runtime import Runtime

    Ask = Callable[[Applications, str], bytes]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask an application for a path, as a request at the only listener; return the body."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def ask(application: Applications, path: str) -> bytes:
            environ = {
                "PATH_INFO": path,
                "REQUEST_METHOD": "GET",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.url_scheme": "http",
                "gunicorn.socket": listener,
            }
            return b"".join(application(environ, lambda *_: lambda _: None))

        yield ask


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The loads of the whole application, which answers "whole"; an error in the list is raised by the next one."""
    seen: list[object] = []

    def create(runtime: Runtime) -> WSGIApplication:
        if seen and isinstance(error := seen.pop(), Exception):
            raise error
        seen.append(runtime)
        return lambda _environ, _start_response: [b"whole"]

    monkeypatch.setattr(receiver.app, "create_app", create)
    return seen


@one_database
def test_pushes_probes_and_metrics_load_no_console(runtime: Runtime, ask: Ask, loads: list[object]) -> None:
    applications = Applications(runtime)
    assert applications.extensions[RUNTIME] is runtime
    for path in ("/healthz", "/readyz", "/metrics", f"/push/{SECRET}", f"/PUSH/{SECRET}/report"):
        assert ask(applications, path) != b"whole"
    assert loads == []
    assert {ask(applications, path) for path in ("/", "/console/", "/api/v1/messages", "/healthz/deeper")} == {b"whole"}
    assert loads == [runtime]


@one_database
def test_push_below_a_sub_path_loads_no_console(
    make_runtime: Callable[..., Runtime], ask: Ask, loads: list[object]
) -> None:
    applications = Applications(make_runtime(public_url="https://sms.example.com/hooks"))
    assert b"not_found" not in ask(applications, f"/hooks/push/{SECRET}")
    assert loads == []


@one_database
def test_requests_that_come_together_load_it_once(runtime: Runtime, ask: Ask, loads: list[object]) -> None:
    together = threading.Barrier(4)
    applications = Applications(runtime)

    def one(_number: int) -> bytes:
        together.wait(10)
        return ask(applications, "/console/")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(4))) == [b"whole"] * 4
    assert loads == [runtime]


@one_database
def test_whole_that_cannot_be_loaded_fails_its_request_and_is_tried_again(
    runtime: Runtime, ask: Ask, loads: list[Any]
) -> None:
    applications = Applications(runtime)
    loads.append(OSError("no file descriptor left"))
    with pytest.raises(OSError, match="no file descriptor"):
        ask(applications, "/console/")
    assert ask(applications, f"/push/{SECRET}") != b"whole"
    assert ask(applications, "/console/") == b"whole"
