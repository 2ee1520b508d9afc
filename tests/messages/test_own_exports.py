"""What our own export has written, our own import reads as it was."""

from __future__ import annotations

import io
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import CONTROL, formulas
from receiver.messages.export_files import FileFormat
from receiver.messages.imports.columns import RecordReader, is_known
from receiver.messages.imports.files import open_rows
from tests.harness.factories import NOON
from tests.harness.running import examples
from tests.messages.test_export_bytes import HOSTILE, export, fill

if TYPE_CHECKING:
    from receiver.runtime import Runtime

FIELDS = ("task_id", "template_id", "reference")
# What other programs put into cells, and what may begin a formula, in front of one another.
MARKS = ["'", "''", "=", "+", "-", "@", "＝", '="1"', "'5", "5", "NULL", "\\N", "(null)", "\u200b", "_x0041_", "<r>"]
written = st.one_of(
    st.sampled_from([*MARKS, *HOSTILE, *("".join(pair) for pair in product(MARKS, MARKS))]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")),
)
# As senders' records are kept: trimmed, without control characters.
recordable = written.map(str.strip).filter(lambda text: text and not CONTROL.search(text))


@given(st.text() | written)
def test_cell_that_was_made_neutral_is_bare_again(text: str) -> None:
    neutral = formulas.neutral(text)
    assert formulas.bare(neutral) == text
    assert neutral in {text, f"'{text}"}
    assert neutral.startswith("'") or not formulas.may_be_formula(neutral)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(recordable, recordable, recordable), min_size=1, max_size=8, unique_by=lambda row: row[0])
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_format_of_our_own_is_read_as_it_was(runtime: Runtime, rows: list[tuple[str, str, str]]) -> None:
    common: dict[str, Any] = {
        "mobile": "15080921090", "status": 0, "seen": 0, "error_message": None, "send_state": None, "sent_at": NOON,
        "recorded_at": NOON, "wait": None,
    }  # fmt: skip
    fill(runtime, [common | dict(zip(FIELDS, row, strict=True)) for row in rows], [])
    for form in (FileFormat.CSV, FileFormat.NDJSON, FileFormat.XLSX):
        file = open_rows(io.BytesIO(export(runtime, "messages", form)), None, known=is_known)
        reader = RecordReader({}, zone=runtime.settings.timezone, time_formats=())
        records = [record for _, record in reader.read(file)]
        assert [tuple(record[field] for field in FIELDS) for record in records] == rows, form
        assert {"latency_seconds", "matched"} <= set(reader.unused)
