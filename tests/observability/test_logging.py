"""Logs give nothing away, not even where a library quotes what it was given."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from receiver.app import create_app
from receiver.core import DatabaseUnavailable
from receiver.observability import get_logger, redact
from receiver.platform.client import PlatformProtocolError
from tests.harness.leaks import SECRET, leaks

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.runtime import Runtime


@pytest.fixture
def written() -> io.StringIO:
    root = logging.getLogger()
    kept = io.StringIO()
    handler = logging.StreamHandler(kept)
    handler.setFormatter(root.handlers[0].formatter)
    root.addHandler(handler)
    return kept


def test_library_that_quotes_a_request_line_is_redacted(written: io.StringIO) -> None:
    for begins in ("/push/", "/Push/", "/push?token=", "/push%2F"):
        logging.getLogger("some.library").error(
            "cannot read 'POST %s%s?mobile=15080921090 HTTP/1.1' of 15080921090", begins, SECRET
        )
    events = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert events == [
        f"cannot read 'POST {begins}*** HTTP/1.1' of 150****1090"
        for begins in ("/push/", "/Push/", "/push?", "/push%2F")
    ]
    assert leaks(written.getvalue()) == []


def test_traceback_is_redacted(written: io.StringIO) -> None:
    try:
        raise ValueError(f"/push/{SECRET} 8615080921090")
    except ValueError:
        logging.getLogger("some.library").exception("failed")
    assert "ValueError" in written.getvalue()
    assert leaks(written.getvalue()) == []


def test_values_of_an_event_are_redacted(written: io.StringIO) -> None:
    get_logger("receiver.test").warning("odd", path=f"/push/{SECRET}/receipt")
    assert json.loads(written.getvalue())["path"] == "/push/***"


class _Quoting(Exception):
    """An error whose text holds what no log may hold."""


@pytest.mark.parametrize(
    ("path", "error", "status", "says"),
    [
        ("/healthz", _Quoting(f"/push/{SECRET} 8615080921090"), 500, {"error": "_Quoting"}),
        ("/console/login", _Quoting(f"/push/{SECRET} 8615080921090"), 500, {"error": "_Quoting"}),
        ("/healthz", DatabaseUnavailable("away"), 503, {"error": "DatabaseUnavailable", "reason": "away"}),
        ("/console/login", DatabaseUnavailable("away"), 503, {"error": "DatabaseUnavailable", "reason": "away"}),
        ("/healthz", PlatformProtocolError("no JSON"), 502, {"error": "PlatformProtocolError", "reason": "no JSON"}),
    ],
)
def test_failed_request_is_one_line_with_its_error(
    path: str,
    error: Exception,
    status: int,
    says: dict[str, str],
    written: io.StringIO,
    make_runtime: Callable[..., Runtime],
) -> None:
    app = create_app(make_runtime(access_log=False))

    def fail() -> str:
        raise error

    app.view_functions["ops.healthz" if path == "/healthz" else "console.log_in"] = fail
    assert app.test_client().get(path, buffered=True).status_code == status
    (line,) = [json.loads(text) for text in written.getvalue().splitlines()]
    assert says.items() <= line.items()
    assert (line["event"], line["message"]) == ("request", f"GET {path} {status}")
    assert (line["level"], line["http_status"], line["route"]) == ("error", status, path)
    assert ("_Quoting: /push/***" in line.get("exception", "")) == (status == 500)
    assert leaks(written.getvalue()) == []


def test_the_check_for_leaks_finds_them() -> None:
    for text in (f"/push/{SECRET}", "15080921090", "收到", "Bearer rcv_" + "a" * 43):
        assert len(leaks(text)) == 1
    assert redact("task 1234567890123456789") == "task 1234567890123456789"
