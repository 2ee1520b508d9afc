"""A Singer tap reads the lists and the events, and takes up again from its state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.tools.compare import as_columns, assert_same
from tests.tools.environments import program, run
from tests.tools.rows import Push

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House, Row

_TAP = "tap-rest-api-msdk"
_FAR_BACK = "2000-01-01T00:00:00Z"


def config(house: House) -> dict[str, Any]:
    """Return the tap's configuration, as its documentation has it for a cursor in JSON."""
    return {
        "api_url": f"{house.url}/api/v1",
        "auth_method": "bearer_token",
        "bearer_token": house.key,
        "pagination_request_style": "jsonpath_paginator",
        "next_page_token_path": "$.next_cursor",
        "pagination_next_page_param": "cursor",
        "records_path": "$.items[*]",
        "params": {"limit": 1000},  # it infers the columns from the first page
        "start_date": _FAR_BACK,
        "streams": [
            {
                "name": "messages",
                "path": "/messages",
                "primary_keys": ["id"],
                "num_inference_records": 1000,
                "replication_key": "updated_at",
                "source_search_field": "updated_from",
                "source_search_query": "$last_run_date",
            },
            {
                "name": "receipts",
                "path": "/receipts",
                "primary_keys": ["id"],
                "num_inference_records": 1000,
            },
            {
                "name": "replies",
                "path": "/replies",
                "primary_keys": ["id"],
                "num_inference_records": 1000,
            },
            {
                "name": "events",
                "path": "/events",
                "primary_keys": ["event_id"],
                "num_inference_records": 1000,
            },
        ],
    }


def extract(house: House, place: Path, state: Any = None) -> tuple[dict[str, list[Row]], Any]:
    """Run the tap; return its records by stream, and its state."""
    (place / "config.json").write_text(json.dumps(config(house)))
    (place / "state.json").write_text(json.dumps(state))
    arguments = ["--config", "config.json", *(["--state", "state.json"] if state else [])]
    found: dict[str, list[Row]] = {"messages": [], "receipts": [], "replies": [], "events": []}
    for line in run([program("singer", _TAP), *arguments], place, {}).splitlines():
        said = json.loads(line)
        if said["type"] == "RECORD":
            found[said["stream"]].append(said["record"])
        elif said["type"] == "STATE":
            state = said["value"]
    return found, state


def test_tap_reads_every_list_and_takes_up_from_its_state(house: House, tmp_path: Path) -> None:
    found, state = extract(house, tmp_path)
    for name, key in {"messages": "id", "receipts": "id", "replies": "id", "events": "event_id"}.items():
        assert_same(as_columns(found[name], "_"), as_columns(house.rows(name), "_"), key=key)
    late = Push("plain-104", "13900000104", status="0", at="2026-11-21 00:00:00")
    assert house.process.push(late.body).status == 200
    everything = len(found["messages"])
    found, _ = extract(house, tmp_path, state)
    assert [row["status"] for row in found["messages"] if row["task_id"] == "plain-104"] == ["failed"]
    assert len(found["messages"]) < everything / 2  # its state is in whole seconds
