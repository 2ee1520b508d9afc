"""The description of the API and the API agree: nothing undocumented, no 5xx, whatever is sent."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from receiver.records import FIELDS, InvalidSend, SendReader
from tests.conftest import make_settings
from tests.platforms import APP_ID, APP_KEY, stand_in
from tests.server import ServeProcess
from tests.test_push import RECEIPT, REPLY, push

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

CONFIG = Path(__file__).parent / "schemathesis.toml"
RAW = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"
RAW_REPLY = b"mobile=15080921090&taskid=3313746&content=TD&receivetime=2019-07-23+17%3A00%3A00"
SENDS = [{"task_id": str(number), "mobile": "15080921090"} for number in range(200)]
BODIES = {
    "/api/v1/messages": [*SENDS, *([send] for send in SENDS)],
    "/api/v1/messages/search": [{}, {"limit": 1}],
    "/api/v1/messages/verified": SENDS[:2],
    "/api/v1/verify-codes": [{"mobile": "15080921090", "template_id": "540", "code": "1234"}],
}
MAX_ROUNDS = 12  # chance decides which links a round follows; two or three are enough
PAGING = {"limit", "cursor", "after", "wait", "from", "to"}


@contextmanager
def serving(tmp_path: Path, database_url: str) -> Iterator[ServeProcess]:
    """A server with a platform to send through, a few pushes, and a key for everything."""
    platform = stand_in(unknown_every=3)
    environment = {
        "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform.port}/smsApi",
        "RECEIVER_PLATFORM_CREDENTIALS": f"default:{APP_ID}:{APP_KEY}",
    }
    process = ServeProcess(tmp_path, database_url if "postgresql" in database_url else "", environment=environment)
    if process.database_url:
        assert process.run("db", "upgrade").returncode == 0
    with platform, process:
        for number in range(3):
            process.push(RAW)
            process.push(RAW.replace(b"3313746", b"%d" % number))
            process.push(RAW_REPLY.replace(b"TD", b"TD%d" % number))
            process.push(b"mobile=bad")
        process.key = process.make_key("read", "messages:write", "messages:send", "reports", "export", "pushes", "pii")
        yield process


def fuzz(process: ServeProcess, described: str, *options: str, config: Path = CONFIG) -> str:
    """Let schemathesis try what is described there; what it says."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", described),
            *("--header", f"Authorization: {process.key['Authorization']}"),
            *("--no-color", "--generation-database", "none", *options),
        ],
        capture_output=True, text=True, check=False, timeout=100, cwd=process.data_dir,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    return found.stdout


@pytest.mark.thorough
@pytest.mark.timeout(150)
def test_fuzzing_the_running_server_finds_nothing(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database_url) as process:
        described = f"http://127.0.0.1:{process.port}/api/v1/openapi.json"
        said = fuzz(process, described, "--max-examples", "30", "--seed", "1")
    assert "19/19" in said


@pytest.mark.thorough
@pytest.mark.timeout(150)
def test_every_link_of_the_description_leads_where_it_says(tmp_path: Path, database_url: str) -> None:
    config, described, report = (tmp_path / name for name in ("schemathesis.toml", "described.json", "report.ndjson"))
    config.write_text(CONFIG.read_text() + "\n[phases.stateful.inference]\nalgorithms = []\n")
    followed: Counter[str] = Counter()
    with serving(tmp_path, database_url) as process:
        document = process.request("GET", "/api/v1/openapi.json").json
        links = {name for name, _, _ in links_of(document)}
        for seed in range(1, MAX_ROUNDS + 1):
            described.write_text(json.dumps(easily_met(document, set(followed))))
            fuzz(
                process, str(described), "--url", f"http://127.0.0.1:{process.port}",
                *("--phases", "stateful", "--mode", "positive", "--max-time", "6", "--seed", str(seed)),
                *("--report", "ndjson", "--report-ndjson-path", str(report)), config=config,
            )  # fmt: skip
            followed += followed_links(report)
            if followed.keys() >= links:
                break
    assert len(links) >= 20
    assert sorted(links - followed.keys()) == []


def easily_met(document: Any, followed: set[str]) -> Any:
    """The description narrowed to what is not refused, and to links that are still to be followed.

    Short pages without filters, and bodies that are taken.

    A next page is there only with the same filters, and a link cannot say that one was not given. A followed link
    stays where one that is not followed yet begins at what it leads to.
    """
    left = copy.deepcopy(document)
    beginnings = {source_of(name) for name, _, _ in links_of(document) if name not in followed}
    for name, links, link in list(links_of(left)):
        if name in followed and target_of(name) not in beginnings:
            del links[link]
    for path, item in left["paths"].items():
        for operation in item.values():
            if "parameters" in operation:
                operation["parameters"] = [
                    one for one in operation["parameters"] if one["in"] != "query" or one["name"] in PAGING
                ]
        for one in item.get("get", {}).get("parameters", []):
            if one["name"] == "limit":
                one |= {"required": True, "schema": {"enum": [1, 2]}}
        if path in BODIES:
            item["post"]["requestBody"]["content"]["application/json"]["schema"] = {"enum": BODIES[path]}
    return left


def links_of(document: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every link: as schemathesis names it, and where it stands under which name."""
    target = {
        operation["operationId"]: f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    for item in document["paths"].values():
        for method, operation in item.items():
            for status, answer in operation["responses"].items() if method != "parameters" else ():
                for name, link in answer.get("links", {}).items():
                    source = target[operation["operationId"]]
                    yield f"{source} -> [{status}] {name} -> {target[link['operationId']]}", answer["links"], name


def source_of(link: str) -> str:
    return link.split(" -> ", maxsplit=1)[0]


def target_of(link: str) -> str:
    return link.split(" -> ")[2]


def followed_links(report: Path) -> Counter[str]:
    """How often each link led to something."""
    followed: Counter[str] = Counter()
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for name, case in recorder.get("cases", {}).items():
            if case["is_transition_applied"]:
                status = recorder["interactions"][name]["response"]["status_code"]
                followed[case["transition"]["id"]] += 200 <= status < 300
    return followed


def test_description_is_openapi_3_1_and_open_to_all(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").json
    assert described["openapi"] == "3.1.0"
    paths = set(described["paths"])
    assert paths == {
        "/api/v1/messages", "/api/v1/messages/search", "/api/v1/messages/verified",
        "/api/v1/messages/{message_id}", "/api/v1/receipts",
        "/api/v1/replies", "/api/v1/pushes", "/api/v1/pushes/{push_id}", "/api/v1/pushes/{push_id}/replay",
        "/api/v1/verify-codes", "/api/v1/balance", "/api/v1/reports/billing", "/api/v1/events",
        "/api/v1/reports/delivery", "/api/v1/reports/busiest",
        "/api/v1/exports/messages", "/api/v1/exports/receipts", "/api/v1/exports/replies",
    }  # fmt: skip


def test_items_have_exactly_the_fields_of_the_contract(client: FlaskClient, bearer: dict[str, str]) -> None:
    push(client, RECEIPT)
    push(client, REPLY)

    def first(path: str) -> set[str]:
        return set(client.get(f"/api/v1/{path}", headers=bearer).json["items"][0])

    assert first("messages") == {
        "id",
        "account",
        "task_id",
        "mobile",
        "template_id",
        "reference",
        "sent_at",
        "recorded_at",
        "status",
        "late",
        "reported_at",
        "latency_seconds",
        "matched",
        "conflicting",
        "error_message",
        "receipt_count",
        "reply_count",
    }
    assert first("receipts") == {
        "id",
        "message_id",
        "account",
        "task_id",
        "mobile",
        "status",
        "vendor_status",
        "reported_at",
        "received_at",
        "last_seen_at",
        "copies",
        "extra",
        "push_id",
    }
    assert first("replies") == {
        "id",
        "message_id",
        "account",
        "task_id",
        "mobile",
        "content",
        "opt_out",
        "opt_out_review",
        "replied_at",
        "received_at",
        "last_seen_at",
        "copies",
        "extra",
        "push_id",
    }
    assert first("pushes") == {
        "id",
        "account",
        "kind",
        "outcome",
        "error",
        "method",
        "query",
        "received_at",
        "remote_addr",
        "content_type",
        "body_base64",
        "flags",
    }


def test_documentation_page_needs_no_other_host(client: FlaskClient) -> None:
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert b"http" not in page.data
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "init.js", "favicon-32x32.png"):
        assert name in page.text
        assert client.get(f"/api/v1/docs/{name}").status_code == 200
    assert client.get("/api/v1/docs/../common.py").status_code == 404


VALUES: dict[str, list[Any]] = {
    "task_id": ["1", 3313746, "x" * 64, "x" * 65, "a\0", "任务", 1.5, True],
    "mobile": ["15080921090", 15080921090, "+86 150-8092-1090", "letters", "", None, ["1"]],
    "template_id": ["540", 540, None, "x" * 256],
    "reference": ["r", None, "\x07", {}],
    "sent_at": ["2026-11-23T09:14:03+08:00", None, 7],
    "success_counts": [1, "1", None, "x", 1.5],
    "remain_point": [241, None, True],
    "return_status": ["1", 1, None, "2", 2],
    "message": [None, ""],
    "account": ["default", None],
    "colour": ["red"],
}


def test_schema_of_a_send_agrees_with_what_is_read(client: FlaskClient, tmp_path: Path) -> None:
    schema = client.get("/api/v1/openapi.json").json["components"]["schemas"]["Send"]
    assert set(schema["properties"]) == FIELDS
    settings = make_settings("sqlite://", tmp_path)
    reader = SendReader(zone=settings.timezone, accounts=settings.accounts)
    good = {"task_id": "1", "mobile": "15080921090"}
    for field, values in VALUES.items():
        for value in values:
            item = good | {field: value}
            read = True
            try:
                reader.read(item)
            except InvalidSend:
                read = False
            described = jsonschema.Draft202012Validator(schema).is_valid(item)
            assert described == read, (field, value)
