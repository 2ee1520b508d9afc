"""Logs give nothing away, not even where a library quotes what it was given."""

from __future__ import annotations

import io
import json
import logging

import pytest

from receiver.observability import get_logger, redact
from tests.harness.leaks import SECRET, leaks


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


def test_the_check_for_leaks_finds_them() -> None:
    for text in (f"/push/{SECRET}", "15080921090", "收到", "Bearer rcv_" + "a" * 43):
        assert len(leaks(text)) == 1
    assert redact("task 1234567890123456789") == "task 1234567890123456789"
