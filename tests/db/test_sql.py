"""What SQL says of a value is what Python says of it, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import mask_inside, mask_mobile
from receiver.db.sql import masked_mobile, masked_text, text_without_numbers

if TYPE_CHECKING:
    from receiver.runtime import Runtime

# PostgreSQL has no text with NUL, and neither database one with half a surrogate.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
numbers = st.text("0123456789*", max_size=20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=numbers | st.text(characters))
def test_number_is_masked_in_sql_as_in_python(runtime: Runtime, text: str) -> None:
    given_text = sa.select(sa.cast(text, sa.Text).label("mobile")).subquery()
    dialect = "postgresql" if runtime.database.postgresql else "sqlite"
    masked: sa.ColumnElement[str] = sa.literal_column(masked_mobile(dialect, "mobile"))
    with runtime.database.reading() as connection:
        assert connection.scalar(sa.select(masked).select_from(given_text)) == mask_mobile(text)


written = st.text("1３09０8６6 -\u3000\uff0d+＋a的", max_size=40)
phones = st.builds(
    lambda before, prefix, digits, marks, after: (
        before + prefix + "".join(map("".join, zip(digits, marks, strict=False))) + after
    ),
    st.sampled_from(["", "号", "5", "a", "tel ", "- "]),
    st.sampled_from(["", "+86", "0086 ", "８６-", "86"]),
    st.lists(st.sampled_from("0123456789０１５"), min_size=10, max_size=12).map(lambda digits: ["1", *digits]),
    st.lists(st.sampled_from(["", "", "", " ", "-", "\u3000", " - "]), min_size=13, max_size=13),
    st.sampled_from(["", "。", "5", "f", " 转 1"]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=written | phones | st.text(characters))
def test_text_is_masked_in_sql_as_in_python(runtime: Runtime, text: str) -> None:
    given_text = sa.select(sa.cast(text, sa.Text).label("content")).subquery()
    dialect = "postgresql" if runtime.database.postgresql else "sqlite"
    shown: sa.ColumnElement[str] = sa.literal_column(masked_text(dialect, "content"))
    with runtime.database.reading() as connection:
        assert connection.scalar(sa.select(shown).select_from(given_text)) == mask_inside(text)
        if dialect == "sqlite":
            bare: sa.ColumnElement[str] = sa.literal_column(text_without_numbers("content"))
            found = connection.scalar(sa.select(bare).select_from(given_text))
            assert found == "***" or found == text == mask_inside(text)
