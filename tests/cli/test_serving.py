"""The second terminal finds the server that runs, wherever it was told to listen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from receiver.net.serving import NOTE, addresses_published, as_served
from tests.conftest import SECRET, make_settings
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {"RECEIVER_BIND": ""}  # as in a terminal where nobody has said it


def test_commands_of_another_terminal_find_the_server_that_runs(tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as process:
        other = ServeProcess(tmp_path, environment=ELSEWHERE)
        assert other.run("push-url").stdout.strip() == f"http://127.0.0.1:{process.port}/push/{SECRET}"
        assert "server: ready" in other.run("status").stdout
    assert other.run("push-url").stdout.strip() == f"http://127.0.0.1:8000/push/{SECRET}"


@pytest.mark.parametrize("inside", [None, ("::1", 9001)])
def test_note_counts_while_its_writer_runs_and_no_longer(tmp_path: Path, inside: tuple[str, int] | None) -> None:
    asked = make_settings("sqlite://", tmp_path)
    files = tmp_path / "a.pem", tmp_path / "b.pem"
    served = replace(asked, bind=("0.0.0.0", 9000), internal_bind=inside, tls_cert=files[0], tls_key=files[1])
    assert as_served(asked) == asked
    with addresses_published(served):
        assert as_served(asked) == served
        with addresses_published(asked):  # another server on the same directory changes nothing
            assert as_served(asked) == served
    assert as_served(asked) == asked


def test_note_of_another_version_is_none(tmp_path: Path) -> None:
    asked = make_settings("sqlite://", tmp_path)
    with addresses_published(replace(asked, bind=("127.0.0.1", 9000))):
        for text in ("", "{}", "[1]", '{"bind": 5}'):
            (tmp_path / NOTE).write_text(text)
            assert as_served(asked) == asked
