"""What SQL says of a value is what Python says of it, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.core import mask_mobile
from receiver.db.sql import masked_mobile

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
