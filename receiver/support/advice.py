"""The team's own advice for each answer to a look-up, by language."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from receiver.db.tables import advice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from receiver.audit import AuditTrail
    from receiver.support.answers import LookupAnswer

MAX_CHARS = 500


def list_advice(connection: sa.Connection, language: str) -> Mapping[str, str]:
    """Return the team's own advice in a language, by the answer that it is for."""
    rows = connection.execute(sa.select(advice.c.answer, advice.c.text).where(advice.c.language == language))
    return {row[0]: row[1] for row in rows}


def set_advice(trail: AuditTrail, actor: str, language: str, texts: Mapping[LookupAnswer, str]) -> None:
    """Save the advice for these answers, audited; an empty text restores the built-in one."""

    def change(connection: sa.Connection) -> None:
        rows = [{"answer": answer.value, "language": language, "text": text} for answer, text in texts.items()]
        answers = [row["answer"] for row in rows]
        connection.execute(sa.delete(advice).where(advice.c.language == language, advice.c.answer.in_(answers)))
        rows = [row for row in rows if row["text"]]
        if rows:
            connection.execute(sa.insert(advice), rows)

    trail.audited(change, actor, "advice.change", language=language)
