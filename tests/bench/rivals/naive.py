r"""A push receiver as one would write it: a Flask view, a model, a session and a commit for each push.

It acknowledges after the commit and takes a copy for seen, so it keeps the main promise; it is no straw man.

    PUSH_SECRET=… DATABASE_URL=postgresql://… THREADS=8 gunicorn --preload --worker-class gthread \
        --workers 3 --threads 8 tests.bench.rivals.naive:app
    PUSH_SECRET=… DATABASE_URL=sqlite:///… THREADS=1 gunicorn --preload --worker-class gthread \
        --workers 1 --threads 1 tests.bench.rivals.naive:app

Both are the best of 1 to 4 workers by 1 to 64 threads on two cores that the load generator and the database share.
PostgreSQL, 32 and 128 clients: 3 × 8 took 1,120 to 1,360 pushes a second, 2 × 8 1,160 to 1,370, 4 × 8 950 to 1,380,
2 × 16 900 to 1,180, 2 × 32 900 to 1,150, 1 × 64 670. SQLite: every mixture took 900 to 1,240, as one writes at a
time; 1 × 1 stands for them because its p99 at 32 clients is the lowest by far, 33 ms (2 × 1: 31 to 67 ms, 2 × 4:
100 ms, 1 × 64: 430 ms).
"""

from __future__ import annotations

import hmac
import os
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response, abort, request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

SECRET = os.environ["PUSH_SECRET"]
# postgresql://… or sqlite:///…
DATABASE_URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
THREADS = int(os.environ["THREADS"])


class Base(DeclarativeBase):
    """The models' base."""


class Push(Base):
    """One delivery receipt."""

    __tablename__ = "pushes"
    __table_args__ = (sa.UniqueConstraint("taskid", "mobile", "status", "receivetime"),)

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    mobile: Mapped[str] = mapped_column(sa.String(32))
    taskid: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[str] = mapped_column(sa.String(16))
    receivetime: Mapped[datetime]
    raw: Mapped[str] = mapped_column(sa.Text)


def _connect() -> sa.Engine:
    if not DATABASE_URL.startswith("sqlite:"):
        return sa.create_engine(DATABASE_URL, pool_size=THREADS, max_overflow=0)
    engine = sa.create_engine(DATABASE_URL, pool_size=THREADS, max_overflow=0, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


engine = _connect()
# Made once, before the workers are forked (--preload); no connection may cross the fork.
Base.metadata.create_all(engine)
engine.dispose()

app = Flask(__name__)


@app.get("/")
def ready() -> str:
    """Answer that it is there."""
    return "ok"


@app.post("/push/<secret>")
def push(secret: str) -> Response:
    """Store one receipt, once, and say `ok`."""
    if not hmac.compare_digest(secret.encode(), SECRET.encode()):
        abort(404)
    raw = request.get_data(as_text=True)  # before the form, which would leave nothing of it
    try:
        receipt = Push(
            mobile=request.form["mobile"],
            taskid=request.form["taskid"],
            status=request.form["status"],
            receivetime=datetime.strptime(request.form["receivetime"], "%Y-%m-%d %H:%M:%S"),  # noqa: DTZ007
            raw=raw,
        )
    except ValueError:
        abort(400)
    with Session(engine) as session:
        session.add(receipt)
        try:
            session.commit()
        except IntegrityError:
            session.rollback()  # already seen
    return Response("ok", content_type="text/plain; charset=utf-8")
