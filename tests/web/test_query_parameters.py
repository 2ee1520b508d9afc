"""A query that cannot be meant as it stands is refused, and the error names the parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.web.console.staff import log_in

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

    from receiver.runtime import Runtime

SPAN = "from=2026-11-01&to=2026-12-01"


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("messages?status=failed&status=delivered", "status"),
        ("messages?limit=1&limit=1", "limit"),
        ("receipts?task_id=1&task_id=2", "task_id"),
        ("exports/replies?format=csv&format=ndjson", "format"),
        (f"reports/delivery?{SPAN}&group_by=day&group_by=account", "group_by"),
        ("messages/1?wait=0&wait=1", "wait"),
        ("audit?actor=a&actor=b", "actor"),
    ],
)
def test_parameter_that_is_given_twice_is_refused(
    path: str, parameter: str, client: FlaskClient, bearer: dict[str, str]
) -> None:
    answer = client.get(f"/api/v1/{path}", headers=bearer)
    assert (answer.status_code, answer.json["errors"]) == (
        422,
        [{"pointer": f"#/{parameter}", "detail": "given more than once", "parameter": parameter}],
    )


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("messages?cursor=x", "cursor"),
        ("messages?limit=0", "limit"),
        ("messages?account=none", "account"),
        ("receipts?colour=red", "colour"),
        ("receipts?a%2Fb~=1", "a/b~"),
        ("reports/delivery?from=2026-11-02&to=2026-11-01", "to"),
    ],
)
def test_error_of_a_query_names_the_parameter(
    path: str, parameter: str, client: FlaskClient, bearer: dict[str, str]
) -> None:
    answer = client.get(f"/api/v1/{path}", headers=bearer)
    assert (answer.status_code, [error["parameter"] for error in answer.json["errors"]]) == (422, [parameter])


def test_error_of_a_body_has_its_pointer_alone(client: FlaskClient, bearer: dict[str, str]) -> None:
    answer = client.post("/api/v1/messages/search", json={"limit": 0}, headers=bearer)
    assert [error.keys() for error in answer.json["errors"]] == [{"pointer", "detail"}]


@pytest.mark.parametrize(
    ("path", "begin", "end"),
    [
        ("messages", "sent_from", "sent_to"),
        ("exports/messages", "sent_from", "sent_to"),
        ("receipts", "received_from", "received_to"),
        ("pushes", "received_from", "received_to"),
        ("audit", "since", "until"),
    ],
)
def test_span_that_ends_before_it_begins_is_refused(
    path: str, begin: str, end: str, client: FlaskClient, bearer: dict[str, str]
) -> None:
    backwards = client.get(f"/api/v1/{path}", query_string={begin: "2026-11-02", end: "2026-11-01"}, headers=bearer)
    assert (backwards.status_code, backwards.json["errors"]) == (
        422,
        [{"pointer": f"#/{end}", "detail": f"before `{begin}`", "parameter": end}],
    )
    empty = client.get(f"/api/v1/{path}", query_string={begin: "2026-11-01", end: "2026-11-01"}, headers=bearer)
    assert empty.status_code == 200


def test_search_whose_span_ends_before_it_begins_is_refused(client: FlaskClient, bearer: dict[str, str]) -> None:
    span = {"sent_from": "2026-11-02", "sent_to": "2026-11-01"}
    answer = client.post("/api/v1/messages/search", json=span, headers=bearer)
    assert (answer.status_code, answer.json["errors"]) == (
        422, [{"pointer": "#/sent_to", "detail": "before `sent_from`"}],
    )  # fmt: skip


def test_page_for_staff_says_that_the_end_is_before_the_beginning(app: Flask, runtime: Runtime) -> None:
    page = log_in(app, runtime, "admin").client.get("/console/messages?sent_from=2026-11-02&sent_to=2026-11-01")
    assert (page.status_code, "The end is before the beginning." in page.text) == (422, True)
