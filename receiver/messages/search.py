"""Full-text search of replies in any language: the index of their text, and the condition that uses it.

Chinese words often have one or two characters, which a trigram index (PostgreSQL's pg_trgm) does not find. PostgreSQL
indexes every character and pair of neighbours of a reply in one GIN index. SQLite has FTS5's trigram index, whose
vocabulary lists which trigrams begin with one or two characters; each text is padded, so that its last characters begin
some.

For encrypted replies the database has keyed hashes of those characters and pairs, without their order. They find
candidates; the decrypted content decides.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from receiver.db.tables import replies

_THREE = 3
_LAST_CHARACTER = chr(0x10FFFF)


def may_contain(grams: str) -> sa.ColumnElement[bool]:
    """Return the condition that encrypted `replies` have all of these hashes (`FieldCipher.grams`)."""
    column = replies.c.content_grams
    by_array = sa.func.string_to_array(column, sa.literal_column("' '")).op("@>", is_comparison=True)
    by_index = sa.and_(column.isnot(None), by_array(sa.func.string_to_array(grams, sa.literal_column("' '"))))
    index = sa.table("reply_grams", sa.column("rowid"), sa.column("reply_grams"))
    every = " AND ".join(f'"{gram}"' for gram in grams.split())
    by_table = replies.c.id.in_(sa.select(index.c.rowid).where(index.c.reply_grams.op("MATCH")(every)))
    return _by_database(by_index, by_table)


def contains(text: str) -> sa.ColumnElement[bool]:
    """Return the condition that `replies` contain a text, in any case (on SQLite: of ASCII letters)."""
    grams = sa.func.text_grams(sa.func.lower(replies.c.content))
    by_grams = grams.op("@>", is_comparison=True)(sa.func.text_grams(sa.func.lower(text)))
    by_terms = replies.c.id.in_(_maybe_containing(text))
    return sa.and_(_by_database(by_grams, by_terms), replies.c.content.icontains(text, autoescape=True))


class _by_database(FunctionElement[bool]):  # noqa: N801  (written as a function)
    """The first of two conditions on PostgreSQL, the second on SQLite."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(_by_database, "postgresql")
def _first(element: _by_database, compiler: Any, **kwargs: Any) -> str:
    return str(compiler.process(element.clauses.clauses[0], **kwargs))


@compiles(_by_database, "sqlite")
def _second(element: _by_database, compiler: Any, **kwargs: Any) -> str:
    return str(compiler.process(element.clauses.clauses[1], **kwargs))


def _maybe_containing(text: str) -> sa.Select[Any]:
    """Return the query for replies that may contain a text, by SQLite's index, in any case."""
    if len(text) >= _THREE:
        index = sa.table("reply_text", sa.column("rowid"), sa.column("reply_text"))
        phrase = '"' + text.replace('"', '""') + '"'
        return sa.select(index.c.rowid).where(index.c.reply_text.op("MATCH")(phrase))
    terms = sa.table("reply_terms", sa.column("doc"), sa.column("term"))
    begin = text.lower()
    return sa.select(terms.c.doc).where(terms.c.term >= begin, terms.c.term < begin + _LAST_CHARACTER)
