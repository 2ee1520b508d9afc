"""Clients that public generators make of the API's description read every row as it is."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.tools.compare import assert_same
from tests.tools.environments import PROGRAMS, node_command, node_place, node_program, program, run
from tests.tools.house import LISTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House, Row

_PARQUET = b"PAR1"
_ORVAL = """
export default {
  receiver: { input: "./openapi.json", output: { client: "zod", mode: "single", target: "./zod.ts" } },
};
"""
_CSV_ROWS = """
import csv, json, sys
print(json.dumps(list(csv.DictReader(open(sys.argv[1], newline="")))))
"""


@pytest.fixture
def place(house: House, tmp_path: Path) -> Path:
    """A directory with the server's description, and the npm packages."""
    (tmp_path / "openapi.json").write_text(json.dumps(house.ask("openapi.json")))
    return node_place(tmp_path)


def test_openapi_fetch_reads_every_list_and_takes_files(house: House, place: Path) -> None:
    shutil.copy(PROGRAMS / "fetch_client.ts", place)
    run([*node_program("openapi-typescript"), "openapi.json", "--output", "api.d.ts"], place, {})
    strict = ["--strict", "--target", "es2023", "--module", "nodenext", "--skipLibCheck", "false", "--types", "node"]
    run([*node_program("tsc"), *strict, "fetch_client.ts"], place, {})
    run([*node_command(), "fetch_client.js"], place, house.environment)
    found = json.loads((place / "found.json").read_text())
    for name in LISTS:
        assert found[name] == house.rows(name)
    assert found["events"] == house.rows("events")
    newest = house.rows("messages")[0]
    assert {name: found["one"][name] for name in newest} == newest
    assert found["code"] == "invalid"
    parquet = (place / "messages.parquet").read_bytes()
    assert (parquet[:4], parquet[-4:]) == (_PARQUET, _PARQUET)
    rows = json.loads(run([program("load", "python"), "-c", _CSV_ROWS, "messages.csv"], place, {}))
    assert_same(rows, house.rows("messages"), text=True)


def test_zod_schemas_of_orval_take_every_answer_and_request(house: House, place: Path) -> None:
    (place / "orval.config.mjs").write_text(_ORVAL)
    run([*node_program("orval"), "--config", "orval.config.mjs"], place, {})
    shutil.copy(PROGRAMS / "zod_check.ts", place)
    samples = zod_samples(house)
    (place / "samples.json").write_text(json.dumps(samples))
    run([*node_command(), "zod_check.ts"], place, {})
    parsed = json.loads((place / "parsed.json").read_text())
    for name, sample in samples.items():
        found = parsed[name]  # zod puts defaults into what is asked
        assert found == (sample if name.endswith("Response") else {**found, **sample}), name


def zod_samples(house: House) -> dict[str, Any]:
    """Return answers and requests by the names that orval gives to their schemas."""
    message, push = house.rows("messages")[0], house.rows("pushes")[0]
    receipt, reply = house.rows("receipts")[0], house.rows("replies")[0]
    webhook = {"name": "zod", "url": "http://localhost:1/hook", "format": "webhooks"}
    created = house.send("POST", "webhooks", webhook)
    month: dict[str, Any] = {"from": "2026-11-01", "to": "2026-12-01"}
    return {
        **{f"List{name.title()}Response": house.ask(name, limit=1000) for name in (*LISTS, "events", "pushes")},
        "GetMessageResponse": house.ask(f"messages/{message['id']}"),
        "GetReceiptResponse": house.ask(f"receipts/{receipt['id']}"),
        "GetReplyResponse": house.ask(f"replies/{reply['id']}"),
        "GetPushResponse": house.ask(f"pushes/{push['id']}"),
        "GetDeliveryReportResponse": house.ask("reports/delivery", group_by="day,template_id", **month),
        "GetDeliveryReportQueryParams": {"group_by": "day", **month},
        "ListWebhooksResponse": house.ask("webhooks"),
        "GetWebhookResponse": house.ask("webhooks/zod"),
        "CreateWebhookBody": webhook,
        "CreateWebhookResponse": created,
        "ListWebhookDeliveriesResponse": house.ask("webhooks/zod/deliveries"),
        "UpdateWebhookBody": {"url": "http://localhost:2/hook"},
        "ReplayWebhookBody": {"ids": ["17"]},
    }


def test_openapi_python_client_reads_every_list_and_takes_files(house: House, place: Path) -> None:
    (place / "generator.yaml").write_text("post_hooks: []\n")
    generator = [program("load", "openapi-python-client"), "generate", "--path", "openapi.json", "--meta", "none"]
    run([*generator, "--output-path", "sms", "--config", "generator.yaml", "--fail-on-warning"], place, {})
    expected = {name: house.rows(name) for name in (*LISTS, "events")}
    printed = run(
        [program("load", "python"), str(PROGRAMS / "python_client.py")],
        place,
        house.environment | {"PYTHONPATH": str(place)},
    )
    found: dict[str, list[Row]] = json.loads(printed)
    for name in LISTS:
        assert_same(found[name], expected[name])
    assert_same(found["events"], expected["events"], key="event_id")
    (recorded,) = house.ask("messages", task_id="0000070000001")["items"]
    assert found["recorded"] == [recorded["id"]]
    parquet = (place / "messages.parquet").read_bytes()
    assert (parquet[:4], parquet[-4:]) == (_PARQUET, _PARQUET)


@pytest.mark.skipif(shutil.which("java") is None, reason="left out: openapi-generator, for want of Java")
def test_openapi_generator_python_client_reads_every_list_and_takes_files(house: House, place: Path) -> None:
    generator = [program("load", "openapi-generator-cli"), "generate", "--generator-name", "python"]
    # Without webhooks, whose methods 7.26 writes without types, which is no Python.
    generator += ["--global-property", "apis,models,supportingFiles"]
    run([*generator, "--input-spec", "openapi.json", "--output", "made", "--package-name", "sms"], place, {})
    expected = {name: house.rows(name) for name in (*LISTS, "events")}
    client = [program("load", "python"), str(PROGRAMS / "generator_client.py")]
    printed = run(client, place, house.environment | {"PYTHONPATH": str(place / "made")})
    found: dict[str, list[Row]] = json.loads(printed)
    for name in LISTS:
        assert_same(found[name], expected[name])
    assert_same(found["events"], expected["events"], key="event_id")
    assert (place / "messages.parquet").read_bytes()[:4] == _PARQUET
    assert (place / "messages.xlsx").read_bytes()[:2] == b"PK"
