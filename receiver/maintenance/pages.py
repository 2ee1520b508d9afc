"""A table in pages, in the order of a unique column, so that no statement and no transaction is long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from receiver.db.engine import Database


def iter_pages(
    ask: Callable[[sa.Select[Any]], list[Any]], query: sa.Select[Any], by: sa.ColumnElement[Any], size: int
) -> Iterator[list[Any]]:
    """Yield the rows of a query in pages of `size`, the last perhaps smaller; `ask` reads one page.

    Continues after the last row of a page, which has `by` as an attribute: deleted rows are not scanned again.
    """
    rows = ask(query.order_by(by).limit(size))
    while rows:
        yield rows
        if len(rows) < size:
            return
        rows = ask(query.where(by > getattr(rows[-1], str(by.key))).order_by(by).limit(size))


def reading_each(database: Database) -> Callable[[sa.Select[Any]], list[Any]]:
    """Return what reads each page in a transaction of its own."""

    def ask(page: sa.Select[Any]) -> list[Any]:
        with database.reading() as connection:
            return list(connection.execute(page))

    return ask
