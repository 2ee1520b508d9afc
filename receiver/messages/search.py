"""Full-text search of replies in any language: the index of their text, and the condition that uses it.

Chinese words often have one or two characters, which a trigram index (PostgreSQL's pg_trgm) does not find. PostgreSQL
indexes every character and pair of neighbours of a reply in one GIN index. SQLite has FTS5's trigram index, whose
vocabulary lists which trigrams begin with one or two characters; each text is padded, so that its last characters begin
some.

For encrypted replies the database has keyed hashes of those characters and pairs, without their order. They find
candidates; the decrypted content decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from receiver.db.tables import replies

if TYPE_CHECKING:
    from collections.abc import Iterator

_THREE = 3
_LAST_CHARACTER = chr(0x10FFFF)
# Objects of `create_statements` and `encrypted_statements`, beyond those in `tables`.
OWN_NAMES = ("ix_replies_text", "reply_text", "reply_terms", "ix_replies_grams", "reply_grams")

_POSTGRESQL = (
    """CREATE OR REPLACE FUNCTION text_grams(content text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(DISTINCT gram) FROM (
        SELECT letter, lead(letter) OVER () AS following
        FROM unnest(string_to_array(content, NULL)) WITH ORDINALITY AS letters (letter, place) ORDER BY place
    ) AS pairs CROSS JOIN LATERAL (VALUES (letter), (letter || following)) AS grams (gram) WHERE gram IS NOT NULL $$""",
)
_SQLITE = (
    "CREATE VIRTUAL TABLE reply_text USING fts5(content, content='', tokenize='trigram')",
    "CREATE VIRTUAL TABLE reply_terms USING fts5vocab(reply_text, 'instance')",
    "INSERT INTO reply_text (rowid, content) SELECT id, content || char(1, 1) FROM replies",
    """CREATE TRIGGER reply_text_insert AFTER INSERT ON replies BEGIN
    INSERT INTO reply_text (rowid, content) VALUES (new.id, new.content || char(1, 1)); END""",
    """CREATE TRIGGER reply_text_delete AFTER DELETE ON replies BEGIN
    INSERT INTO reply_text (reply_text, rowid, content) VALUES ('delete', old.id, old.content || char(1, 1)); END""",
)
_SQLITE_ENCRYPTED = (
    "CREATE VIRTUAL TABLE reply_grams USING fts5(grams, content='', detail='none', tokenize='ascii')",
    """CREATE TRIGGER reply_grams_insert AFTER INSERT ON replies WHEN new.content_grams IS NOT NULL BEGIN
    INSERT INTO reply_grams (rowid, grams) VALUES (new.id, new.content_grams); END""",
    """CREATE TRIGGER reply_grams_delete AFTER DELETE ON replies WHEN old.content_grams IS NOT NULL BEGIN
    INSERT INTO reply_grams (reply_grams, rowid, grams) VALUES ('delete', old.id, old.content_grams); END""",
    """CREATE TRIGGER reply_grams_update AFTER UPDATE OF content_grams ON replies BEGIN
    INSERT INTO reply_grams (reply_grams, rowid, grams)
    SELECT 'delete', old.id, old.content_grams WHERE old.content_grams IS NOT NULL;
    INSERT INTO reply_grams (rowid, grams)
    SELECT new.id, new.content_grams WHERE new.content_grams IS NOT NULL; END""",
    """CREATE TRIGGER reply_text_update AFTER UPDATE OF content ON replies BEGIN
    INSERT INTO reply_text (reply_text, rowid, content) VALUES ('delete', old.id, old.content || char(1, 1));
    INSERT INTO reply_text (rowid, content) VALUES (new.id, new.content || char(1, 1)); END""",
)
# PostgreSQL's index of encrypted replies, as its migration builds it; it has no other rows.
GRAMS = "string_to_array(content_grams, ' ')"
GRAMS_WHERE = "content_grams IS NOT NULL"


def create_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that create and fill the index; on PostgreSQL, the function of its expression."""
    yield from _POSTGRESQL if dialect == "postgresql" else _SQLITE


def drop_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that remove the index."""
    if dialect == "postgresql":
        yield from ("DROP INDEX ix_replies_text", "DROP FUNCTION text_grams")
    else:
        yield from ("DROP TRIGGER reply_text_insert", "DROP TRIGGER reply_text_delete")
        yield from ("DROP TABLE reply_terms", "DROP TABLE reply_text")


def encrypted_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that create SQLite's index of encrypted replies; PostgreSQL's is made by its migration."""
    yield from () if dialect == "postgresql" else _SQLITE_ENCRYPTED


def drop_encrypted_statements(dialect: str) -> Iterator[str]:
    """Yield the statements that remove the index of encrypted replies."""
    if dialect == "postgresql":
        yield "DROP INDEX ix_replies_grams"
        return
    yield from (f"DROP TRIGGER reply_grams_{event}" for event in ("insert", "delete", "update"))
    yield from ("DROP TRIGGER reply_text_update", "DROP TABLE reply_grams")


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
