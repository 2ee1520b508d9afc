"""FastAPI and asyncpg as one would write it: an insert for each push, acknowledged after its commit.

    PUSH_SECRET=… DATABASE_URL=postgresql://… uvicorn --workers 2 tests.bench.rivals.fastapi_asyncpg:app

uvicorn with uvloop and httptools. Two workers took the most of one to three on two cores that the load generator and
the database share; a pool of 10 is asyncpg's own default, and larger ones made no difference beyond the noise.
"""

from __future__ import annotations

import hmac
import os
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import asyncpg
from fastapi import FastAPI, HTTPException, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = os.environ["PUSH_SECRET"]
_TABLE = """
CREATE TABLE IF NOT EXISTS pushes (id bigserial PRIMARY KEY, mobile text, taskid text, status text,
receivetime timestamp, raw text, UNIQUE (taskid, mobile, status, receivetime))
"""
_INSERT = """
INSERT INTO pushes (mobile, taskid, status, receivetime, raw) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
"""


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Hold the pool."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(1)")  # one worker makes the table
            await connection.execute(_TABLE)
        application.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready() -> str:
    """Answer that it is there."""
    return "ok"


@app.post("/push/{secret}")
async def push(secret: str, request: Request) -> Response:
    """Store one receipt, once, and say `ok`."""
    if not hmac.compare_digest(secret.encode(), SECRET.encode()):
        raise HTTPException(404)
    raw = (await request.body()).decode()
    form = {name: values[0] for name, values in parse_qs(raw).items()}
    try:
        moment = datetime.strptime(form["receivetime"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007
        values = (form["mobile"], form["taskid"], form["status"], moment, raw)
    except (KeyError, ValueError):
        raise HTTPException(400) from None
    await request.app.state.pool.execute(_INSERT, *values)
    return Response("ok", media_type="text/plain; charset=utf-8")
