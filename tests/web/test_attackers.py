"""A caller who follows every link of the description comes by nothing that the key is not for."""

from __future__ import annotations

import copy
import json
import re
from base64 import b64decode
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import Flaky
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from receiver.app import create_app
from receiver.auth import changes
from receiver.auth.api_keys import Scope
from receiver.db import migrate, tables
from receiver.db.sqlite import sqlite3
from receiver.messages import recording
from receiver.runtime import Runtime
from receiver.web.auth import policy_for
from tests.conftest import make_settings
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.journal import save_pushes
from tests.harness.platforms import SETTING, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

    from flask import Flask

load_all_checks()
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
ROUNDS = 2
PAGING = {"limit", "cursor", "after", "wait", "from", "to"}
OURS, THEIRS = "default", "other"
NUMBERS = {OURS: "15608911090", THEIRS: "13900002222"}
CONTENTS = {OURS: "words for us alone", THEIRS: "words for them alone"}
WRITES = {Scope.MESSAGES_WRITE, Scope.MESSAGES_SEND, Scope.PUSHES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A kind of key: what it is for, and what a caller with it may come by."""

    scopes: frozenset[Scope] = frozenset(Scope)
    accounts: tuple[str, ...] | None = None
    given: bool = True
    days: int = 1  # until it expires
    revoked: bool = False

    @property
    def good(self) -> bool:
        """Whether it opens anything at all."""
        return self.given and self.days > 0 and not self.revoked


KEYS = {
    **{scope.value: Key(scopes=frozenset({scope})) for scope in Scope},
    "all but pii": Key(scopes=frozenset(Scope) - {Scope.PII}),
    "all of another account": Key(accounts=(THEIRS,)),
    "none": Key(given=False),
    "expired": Key(days=-1),
    "revoked": Key(revoked=True),
}


def fill(runtime: Runtime) -> None:
    """Let both accounts have messages, receipts, replies and pushes of every kind."""
    for account, number in NUMBERS.items():
        given: dict[str, Any] = {"account": account, "mobile": number}
        sends = [make_send(**given, task_id=f"{account}-{n}", sent_at=NOON - timedelta(minutes=n)) for n in range(3)]
        runtime.database.write(partial(recording.record_sent, sends=sends, recorded_at=NOON))
        pushes = [make_push(**given, task_id=f"{account}-{n}", second=n) for n in range(3)]
        pushes += [make_push(**given, task_id=f"{account}-0", content=f"{CONTENTS[account]} {n}") for n in range(3)]
        pushes.append(make_push(account=account, body=f"mobile={number}&taskid=?".encode()))
        save_pushes(runtime.database, pushes)


def rows_of(runtime: Runtime, account: str | None) -> list[Any]:
    """Every row that callers may make or change, of one account or of all."""
    with runtime.database.reading() as connection:
        found = [
            row
            for table in (tables.messages, tables.pushes)
            for row in connection.execute(sa.select(table).order_by(table.c.id))
        ]
    return [row for row in found if account in (None, row.account)]


def aimed(document: Any, runtime: Runtime) -> bytes:
    """The description narrowed to what an attacker who knows every id and number would try."""
    with runtime.database.reading() as connection:
        messages = [str(row) for row in connection.scalars(sa.select(tables.messages.c.id))]
        pushes = [str(row) for row in connection.scalars(sa.select(tables.pushes.c.id))]
    tasks = [f"{account}-{number}" for account in NUMBERS for number in range(3)]
    known: dict[str, list[Any]] = {
        "message_id": messages, "push_id": pushes, "account": [*NUMBERS], "mobile": [*NUMBERS.values()],
        "task_id": tasks, "limit": [1, 2, 1000], "wait": [0], "q": ["words", CONTENTS[OURS]],
        "from": ["2026-11-23"], "to": ["2026-11-24"], "format": ["csv", "ndjson"], "after_id": [0],
    }  # fmt: skip
    sends = [{"account": a, "task_id": t, "mobile": n} for a, n in NUMBERS.items() for t in (f"{a}-0", f"{a}-new")]
    bodies: dict[str, list[Any]] = {
        "/api/v1/messages": [sends, *([send] for send in sends)],
        "/api/v1/messages/search": [{}, *({"mobile": number} for number in NUMBERS.values())],
        "/api/v1/messages/verified": sends,
        "/api/v1/verify-codes": [
            {"account": account, "mobile": number, "template_id": "540", "code": "1234"}
            for account, number in NUMBERS.items()
        ],
    }
    left = copy.deepcopy(document)
    # Targets would be told of what is made here, wherever chance lets them be.
    left["paths"] = {path: item for path, item in left["paths"].items() if "/webhooks" not in path}
    for path, item in left["paths"].items():
        for parameters in [
            item.get("parameters", []),
            *(item[m].get("parameters", []) for m in ("get", "post") if m in item),
        ]:
            parameters[:] = [one for one in parameters if one["in"] != "query" or one["name"] in known.keys() | PAGING]
            for one in parameters:
                if one["name"] in known:
                    one["schema"] = {"enum": known[one["name"]]}
        if path in bodies:
            item["post"]["requestBody"]["content"]["application/json"]["schema"] = {"enum": bodies[path]}
    return json.dumps(left).encode()


@contextmanager
def serving(place: Path) -> Iterator[Runtime]:
    """A runtime with two accounts, one of which can send."""
    with stand_in() as platform:
        runtime = Runtime(
            make_settings(
                f"sqlite:///{place / 'receiver.db'}", place,
                push_tokens=((OURS, "a" * 22), (THEIRS, "b" * 22)),
                platform_url=f"http://127.0.0.1:{platform.port}/smsApi", platform_credentials=SETTING,
            )
        )  # fmt: skip
        migrate.upgrade(runtime.database)
        runtime.start()
        runtime.availability.await_known(60)
        fill(runtime)
        yield runtime
        runtime.stop()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KEYS)
def test_whoever_follows_every_link_comes_by_nothing_that_the_key_is_not_for(kind: str, tmp_path: Path) -> None:
    key = KEYS[kind]
    with serving(tmp_path) as runtime:
        token = make(runtime, key)
        statuses, faults = attack(runtime, tmp_path, key, {"Authorization": f"Bearer {token}"} if key.given else {})
    assert faults == []
    if not key.good or Scope.READ in key.scopes:  # whether one of the others comes by something is left to chance
        assert any(status < 300 for status in statuses) == key.good
    assert len(statuses) >= 10


def make(runtime: Runtime, key: Key) -> str:
    """Make a key of that kind."""
    now = runtime.now()
    made = runtime.database.write(
        lambda c: changes.create_key(
            c, name="attacker", scopes=[*key.scopes], accounts=key.accounts, now=now,
            expires_at=now + timedelta(days=key.days),
        )
    )  # fmt: skip
    if key.revoked:
        runtime.database.write(lambda c: changes.revoke_key(c, name="attacker", now=now))
    return made


def copy_database(source: Path, target: Path) -> None:
    """Make one embedded database like another, whoever has it open."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def attack(runtime: Runtime, place: Path, key: Key, headers: dict[str, str]) -> tuple[list[int], list[str]]:
    """Follow the links of the description with that key, hold each answer against it; their statuses, what is wrong."""
    app = create_app(runtime)
    document = aimed(app.test_client().get("/api/v1/openapi.json").json, runtime)

    def described(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/aimed.json":
            return app.wsgi_app(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [document]

    config = SchemathesisConfig()
    config.projects.default.generation.update(modes=[GenerationMode.POSITIVE])
    described_schema = schemathesis.openapi.from_wsgi("/aimed.json", described, config=config)
    machine: Any = described_schema.as_state_machine()
    statuses: list[int] = []
    faults: list[str] = []
    may_change = key.good and bool(key.scopes & WRITES)
    kept = OURS if key.accounts else None
    before = rows_of(runtime, kept)
    copy_database(place / "receiver.db", place / "before.db")

    class Attacker(machine):  # type: ignore[misc]
        def setup(self) -> None:
            copy_database(place / "before.db", place / "receiver.db")

        def teardown(self) -> None:
            if (key.accounts or not may_change) and rows_of(runtime, kept) != before:
                faults.append("rows were changed")

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"headers": headers | {"Accept-Encoding": "identity"}}  # so that what is shown can be read

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            statuses.append(response.status_code)
            try:
                case.validate_response(response, checks=CHECKS, headers=headers)
                require_due(app, key, case.method, case.formatted_path, response)
            except (AssertionError, FailureGroup) as fault:
                faults.append(str(fault))

    for number in range(ROUNDS):
        # It takes for a fault of ours that the same draws lead elsewhere, which is how links are: that ends the round.
        with suppress(Flaky):
            run_state_machine_as_test(
                seed(number)(Attacker),
                settings=settings(
                    max_examples=3, stateful_step_count=6, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
                ),
            )  # fmt: skip
    return statuses, faults


def require_due(app: Flask, key: Key, method: str, path: str, response: Any) -> None:
    """Raise AssertionError where an answer is not due to a caller with that key."""
    endpoint, _ = app.url_map.bind("localhost").match(path, method)
    policy = policy_for(str(endpoint), method)
    if isinstance(policy, Scope):
        if not key.good:
            assert response.status_code == 401, (method, path, response.status_code)
        elif policy not in key.scopes:
            assert response.status_code == 403, (method, path, response.status_code)
    shown = response.content.decode()
    shown += "".join(b64decode(body).decode() for body in re.findall(r'"body_base64":\s*"([^"]*)"', shown))
    if Scope.PII not in key.scopes:
        assert not [number for number in NUMBERS.values() if number in shown], (method, path)
    if key.accounts:
        ours = (NUMBERS[OURS], CONTENTS[OURS], f"{OURS}-", f'"account": "{OURS}"', f'"account":"{OURS}"')
        assert not [text for text in ours if text in shown], (method, path)
