"""Replies are found by what they contain, on both databases: as a plain look at every one would find them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.db.tables import replies
from receiver.messages import queries
from receiver.messages.queries import Filter, Page
from tests.harness.factories import make_push
from tests.harness.journal import save_pushes
from tests.harness.running import examples

if TYPE_CHECKING:
    from receiver.runtime import Runtime

_TEXT = st.text(alphabet="退订aAßé%_\\\"'* \n\r\u0001𠮷\0", max_size=12)
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def found(runtime: Runtime, text: str) -> set[str]:
    page = Page(limit=1000, filter=Filter(q=text))
    return {row.content for row in runtime.ask(lambda connection: queries.list_replies(connection, page))}


@pytest.mark.timeout(120)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(_TEXT, min_size=1, max_size=8), more=_TEXT.filter(bool))
def test_every_part_of_a_reply_finds_it_and_nothing_else_does(runtime: Runtime, contents: list[str], more: str) -> None:
    runtime.database.write(lambda connection: connection.execute(sa.delete(replies)))
    batch = [make_push(content=content, task_id=str(number)) for number, content in enumerate(contents)]
    save_pushes(runtime.database, batch)
    kept = {content.replace("\0", "\u2400") for content in contents}

    def folded(text: str) -> str:
        return text.lower() if runtime.database.postgresql else text.translate(_TO_LOWER)

    parts = {text[begin:end] for text in kept for begin in range(len(text)) for end in range(begin + 1, len(text) + 1)}
    for text in [*sorted(parts)[:40], more.replace("\0", "\u2400")]:
        assert found(runtime, text) == {content for content in kept if folded(text) in folded(content)}, text


def test_a_reply_of_the_greatest_length_is_kept_and_found(runtime: Runtime) -> None:
    text = "".join(chr(0x4E00 + number % 9000) for number in range(7000))
    save_pushes(runtime.database, [make_push(content=text)])
    assert found(runtime, text[5000:5100]) == found(runtime, text[-1:]) == {text}
