"""The table of cases from outside: each is held by something that is there, and its pushes and sends are run."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.cases import NOT_BUILT, SOURCES, load
from tests.harness.server import ServeProcess
from tests.intake.test_payloads import newest, raw_request, require
from tests.mutations import ROOT
from tests.payloads import CASES, Case
from tests.test_mutations import functions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

ROWS = load()
PAYLOADS = {case.name: case for case in CASES}
NUMBERS = {  # what there is of each source; a row or a reason has to stand for each
    "bugs": [*(str(n) for n in range(1, 43) if n not in (3, 26, 27, 28, 38)), "beside"],
    "reports": [str(n) for n in range(1, 26)],
    "senders": [*(f"1.{n}" for n in range(1, 12)), "2", "3"],
    "attack": [*(f"1.{n}" for n in range(1, 13)), "2", "3"],
    "tools": [str(n) for n in range(1, 35)],
    "ux": ["A1", *(f"A{n}" for n in range(3, 8)), "B6", *(f"B{n}" for n in range(8, 15))],
}


@cache
def meant(name: str) -> tuple[Case, ...]:
    """Return the payloads that a row means by a name."""
    if not name.endswith("*"):
        return (PAYLOADS[name],)
    return tuple(case for case in CASES if case.name.startswith(name[:-1]))


HANDED = list({case.name: case for row in ROWS for name in row.pushes for case in meant(name)}.values())


def test_every_case_is_told_once_and_held_by_what_is_there() -> None:
    assert len({(row.source, row.name) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.name, row.source
        assert row.given, row
        assert row.right, row
        assert row.pushes or row.sends or row.tests, row
        for name in row.pushes:
            assert meant(name), row
        for named in row.tests:
            file, _, function = named.partition("::")
            assert (ROOT / file).is_file(), row
            assert function in functions_of(file), row


def test_every_number_of_a_source_has_a_case_or_a_reason() -> None:
    assert list(NUMBERS) == list(SOURCES)
    wanted = {f"{source} {number}" for source, numbers in NUMBERS.items() for number in numbers}
    assert {row.source for row in ROWS} | {source for source, _ in NOT_BUILT} == wanted


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def flask_alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server whose pushes all go through Flask; those of the lane are in tests/intake/test_payloads.py."""
    url = request.getfixturevalue("module_postgres_database_url") if request.param == "postgresql" else ""
    process = ServeProcess(tmp_path_factory.mktemp("cases"), url, environment={"RECEIVER_PUSH_LANE": "off"})
    if url:
        process.upgrade()
    with process:
        process.key = process.make_key("read", "pushes", "pii")
        yield process


def test_pushes_by_flask(flask_alone: ServeProcess) -> None:
    answers = [(case, flask_alone.exchange(raw_request(case, flask_alone.target), end_sending=True)) for case in HANDED]
    kept = {kind: newest(flask_alone, kind, limit=1000) for kind in ("pushes", "receipts", "replies")}
    for case, answer in answers:
        push_id = answer.headers.get("X-Push-Id")
        require(case, answer, [push for push in kept["pushes"] if push["id"] == push_id], kept.__getitem__)
    assert len(kept["pushes"]) == sum(case.outcome is not None for case in HANDED)


def test_sends(client: FlaskClient, bearer: dict[str, str]) -> None:
    for row in ROWS:
        for send in row.sends:
            answer = client.post("/api/v1/messages", data=send.json, content_type="application/json", headers=bearer)
            if send.refused:
                said = {error["pointer"].removeprefix("#/"): error["detail"] for error in answer.json["errors"]}
                assert (answer.status_code, said) == (422, json.loads(send.refused)), (row.source, send.json)
                continue
            assert answer.status_code == 201, (row.source, answer.json)
            wanted = json.loads(send.kept)
            assert {name: answer.json[name] for name in wanted} == wanted, (row.source, send.json)
