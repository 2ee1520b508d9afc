"""The description of the API and the API agree: nothing undocumented, no 5xx, whatever is sent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from receiver.auth.api_keys import Scope
from tests.harness.platforms import APP_ID, APP_KEY, stand_in
from tests.harness.server import ServeProcess
from tests.intake.test_push import RECEIPT, REPLY, push

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
RAW = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2019-07-23+17%3A00%3A00"
RAW_REPLY = b"mobile=15080921090&taskid=3313746&content=TD&receivetime=2019-07-23+17%3A00%3A00"
SEND = {"task_id": "7", "mobile": "15080921090"}
ENDINGS = ("", ".csv", ".ndjson", ".parquet", ".xlsx")  # of an export
# Calls to begin with, by their bodies; what else there is, they lead to. Repeated ones are answered otherwise.
BEGINNINGS: dict[str, list[Any]] = {
    "record_messages": [SEND, SEND, [SEND | {"task_id": "8"}], [SEND | {"task_id": "8"}]],
    "record_verified": [SEND],
    "search_messages": [{}],
    "send_verify_code": [{"mobile": "15080921090", "template_id": "540", "code": "1234"}],
    **{f"list_{name}": [None] for name in ("messages", "receipts", "replies", "pushes", "events", "audit")},
}


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
        process.upgrade()
    with platform, process:
        for number in range(3):
            process.push(RAW)
            process.push(RAW.replace(b"3313746", b"%d" % number))
            process.push(RAW_REPLY.replace(b"TD", b"TD%d" % number))
            process.push(b"mobile=bad")
        # Not `targets`: a name that chance makes would be asked of a resolver somewhere.
        process.key = process.make_key(*(scope.value for scope in Scope if scope is not Scope.WEBHOOKS))
        yield process


def fuzz(process: ServeProcess, described: Path, *options: str) -> str:
    """Let schemathesis try what is described there; what it says."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", str(described)),
            *("--url", f"http://127.0.0.1:{process.port}"),
            *("--header", f"Authorization: {process.key['Authorization']}"),
            *("--no-color", "--generation-database", "none", *options),
        ],
        capture_output=True, text=True, check=False, timeout=1200, cwd=process.data_dir,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    return found.stdout


@pytest.mark.thorough
@pytest.mark.timeout(1300)  # thousands of requests: 400 s are not enough on a busy machine
def test_fuzzing_the_running_server_finds_nothing(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database_url) as process:
        document = process.request("GET", "/api/v1/openapi.json").json
        # Targets are really sent to: to none outside of this machine.
        described = tmp_path / "described.json"
        described.write_text(json.dumps(document).replace("https://shop.example.com/", "https://127.0.0.1:9/"))
        said = fuzz(process, described, "--max-examples", "30", "--seed", "1")
    operations = sum(len({"get", "post", "patch", "delete"} & set(path)) for path in document["paths"].values())
    assert f"{operations}/{operations}" in said


def test_every_link_of_the_description_leads_where_it_says(tmp_path: Path) -> None:
    with serving(tmp_path, "") as process:
        document = process.request("GET", "/api/v1/openapi.json").json
        walk = Walk(process, document)
        for operation, bodies in BEGINNINGS.items():
            for body in bodies:
                walk.go(operation, {}, body)
    links = {name for path in document["paths"].values() for name in links_of(path)}
    assert len(links) >= 20
    assert sorted(links - walk.followed) == []


class Walk:
    """Calls operations, and whatever their answers lead to, each link once."""

    def __init__(self, process: ServeProcess, document: Any) -> None:
        self._process = process
        self._operations = {
            operation["operationId"]: (method, path, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        }
        self._document = document
        self.followed: set[tuple[str, str, str]] = set()

    def go(self, name: str, parameters: dict[str, str], body: Any = None) -> None:
        """Call an operation, which has to succeed; follow the links of the answer that it gives."""
        method, path, operation = self._operations[name]
        asked: list[dict[str, str]] = self._document["paths"][path].get("parameters", []) + operation.get(
            "parameters", []
        )
        query = {one["name"]: "1" for one in asked if one["name"] == "limit" and one["in"] == "query"} | parameters
        for key in re.findall(r"{(\w+)}", path):
            path = path.replace(f"{{{key}}}", query.pop(key))
        content = None if body is None else json.dumps(body).encode()
        headers = {**self._process.key, **({"Content-Type": "application/json"} if content else {})}
        answer = self._process.request(method.upper(), f"{path}?{urlencode(query)}", content, headers)
        assert 200 <= answer.status < 300, (name, parameters, answer.body)
        for link, led in operation["responses"][str(answer.status)].get("links", {}).items():
            values = {key: find(answer.json, expression) for key, expression in led["parameters"].items()}
            step = (name, str(answer.status), link)
            if step not in self.followed and None not in values.values():
                self.followed.add(step)
                self.go(led["operationId"], {key: str(value) for key, value in values.items()})


def find(document: Any, expression: str) -> Any:
    """What a link's expression points to in an answer's body; None: nothing is there."""
    _, _, pointer = expression.partition("$response.body#/")
    for key in pointer.split("/"):
        try:
            document = document[int(key) if isinstance(document, list) else key]
        except LookupError:
            return None
    return document


def links_of(item: Any) -> Iterator[tuple[str, str, str]]:
    """Every link of a path: operation, status, name."""
    for method, operation in item.items():
        for status, answer in operation["responses"].items() if method != "parameters" else ():
            for name in answer.get("links", {}):
                yield operation["operationId"], status, name


def test_description_is_openapi_3_1_and_open_to_all(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").json
    assert described["openapi"] == "3.1.0"
    paths = set(described["paths"])
    assert paths == {
        "/api/v1/messages", "/api/v1/messages/search", "/api/v1/messages/verified",
        "/api/v1/messages/{message_id}", "/api/v1/receipts", "/api/v1/receipts/{receipt_id}",
        "/api/v1/replies", "/api/v1/replies/{reply_id}",
        "/api/v1/pushes", "/api/v1/pushes/{push_id}", "/api/v1/pushes/{push_id}/replay",
        "/api/v1/verify-codes", "/api/v1/balance", "/api/v1/reports/billing", "/api/v1/events",
        "/api/v1/reports/delivery", "/api/v1/reports/busiest",
        "/api/v1/audit", "/api/v1/webhooks", "/api/v1/webhooks/{name}", "/api/v1/webhooks/{name}/pause",
        "/api/v1/webhooks/{name}/resume", "/api/v1/webhooks/{name}/rotate", "/api/v1/webhooks/{name}/test",
        "/api/v1/webhooks/{name}/dead", "/api/v1/webhooks/{name}/deliveries", "/api/v1/webhooks/{name}/replay",
        *(f"/api/v1/exports/{name}{ending}" for name in ("messages", "receipts", "replies") for ending in ENDINGS),
    }  # fmt: skip


def test_each_format_of_an_export_is_described_as_what_it_is(client: FlaskClient) -> None:
    paths = client.get("/api/v1/openapi.json").json["paths"]
    text, binary = {"schema": {"type": "string"}}, {"schema": {"type": "string", "format": "binary"}}
    csv, ndjson, parquet = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"
    xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    described = {csv: text, ndjson: text, parquet: binary, xlsx: binary}
    octets = {"application/octet-stream": binary}

    def content(ending: str) -> Any:
        return paths[f"/api/v1/exports/replies{ending}"]["get"]["responses"]["200"]["content"]

    assert content("") == described | octets
    assert [content(ending) for ending in ENDINGS[1:]] == [
        {media: schema} | octets for media, schema in described.items()
    ]


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
        "counted_at",
        "status",
        "late",
        "reported_at",
        "latency_seconds",
        "matched",
        "conflicting",
        "error_message",
        "receipt_count",
        "reply_count",
        "verified_at",
        "updated_at",
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
    with_slash = client.get("/api/v1/docs/")
    assert (with_slash.status_code, with_slash.headers["Location"]) == (302, "/api/v1/docs")
