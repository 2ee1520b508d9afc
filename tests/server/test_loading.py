"""API and console are loaded by the first request for them: pushes, probes and metrics do without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
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

ROOT = Path(__file__).parents[2]

# Pushes of every kind, probes and metrics to a worker that has just been started; what each of them imports is printed.
_PUSHES_AND_PROBES = """
import io, socket, sys
import receiver.server.worker
from receiver.config import load_settings
from receiver.runtime import Runtime
from receiver.server.loading import Applications
runtime = Runtime(load_settings())
runtime.make_ready()
runtime.start()
applications = Applications(runtime)
listener = socket.create_server(("127.0.0.1", 0))
push = "/push/" + sys.argv[1]
form, parts = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
part = b'--b\\r\\nContent-Disposition: form-data; name="mobile"\\r\\n\\r\\n15080921090\\r\\n--b--\\r\\n'
good = b"mobile=15080921090&taskid=1&status=1&receivetime=2026-11-23+09:14:03"
for method, path, body, kind in (
    ("POST", push, good, form), ("POST", push, part, parts), ("POST", push, b"{}", "application/json"),
    ("PUT", push, b"\\xff\\xfe%", "text/plain; charset=gbk"), ("GET", push + "/report", b"", ""),
    ("POST", "/push/wrong", b"", form), ("GET", "/healthz", b"", ""), ("GET", "/readyz", b"", ""),
    ("GET", "/metrics", b"", ""),
):
    before, statuses = set(sys.modules), []
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": listener,
    }
    b"".join(applications(environ, lambda status, *_: statuses.append(status)))
    late = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
    print(method, path.replace(sys.argv[1], "SECRET"), statuses[0][:3], *sorted(late))
runtime.stop()
"""


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


def test_nothing_that_a_push_or_a_probe_needs_is_imported_late(tmp_path: Path) -> None:
    """An upgrade may have replaced the package by then, or no file descriptor may be left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECEIVER_")}
    done = subprocess.run(
        [sys.executable, "-c", _PUSHES_AND_PROBES, SECRET],
        env={**kept, "RECEIVER_DATA_DIR": str(tmp_path), "RECEIVER_PUSH_TOKENS": f"default:{SECRET}"},
        capture_output=True, text=True, check=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "POST /push/SECRET 200", "POST /push/SECRET 200", "POST /push/SECRET 200", "PUT /push/SECRET 200",
        "GET /push/SECRET/report 200", "POST /push/wrong 404", "GET /healthz 200", "GET /readyz 200",
        "GET /metrics 200",
    ]  # fmt: skip


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
