"""A client that a public generator makes of the API's description does what the README shows."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow.parquet as pq
import pytest

from tests.harness.platforms import APP_ID, APP_KEY, stand_in
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = "generated_client"
PUSH = b"mobile=15080921090&taskid=3313746&status=1&receivetime=2026-11-23+09%3A14%3A03"
REPLY = b"mobile=15080921090&taskid=3313746&content=TD&receivetime=2026-11-23+09%3A20%3A00"
SENT_AT = datetime(2026, 11, 23, 9, 13, 59, tzinfo=timezone(timedelta(hours=8)))


class Generated:
    """The package, and a client of it with a key."""

    def __init__(self, url: str, key: str) -> None:
        self.models = importlib.import_module(f"{PACKAGE}.models")
        self.client = importlib.import_module(PACKAGE).AuthenticatedClient(
            base_url=url, token=key, raise_on_unexpected_status=True
        )

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """What a call answers, its name as `tag.operation`; its status is among those described."""
        return importlib.import_module(f"{PACKAGE}.api.{name}").sync(*arguments, client=self.client, **named)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    with stand_in() as platform:
        environment = {
            "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform.port}/smsApi",
            "RECEIVER_PLATFORM_CREDENTIALS": f"default:{APP_ID}:{APP_KEY}",
        }
        with ServeProcess(tmp_path, environment=environment) as process:
            yield process


@pytest.fixture
def generated(server: ServeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generated]:
    """The client, made by openapi-python-client from what the server says of itself."""
    url = f"http://127.0.0.1:{server.port}"
    (tmp_path / "generator.yaml").write_text("post_hooks: []\n")
    made = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"),
            *("--url", f"{url}/api/v1/openapi.json", "--output-path", str(tmp_path / PACKAGE)),
            *("--config", str(tmp_path / "generator.yaml")),
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    key = server.make_key("read", "messages:write", "messages:send", "reports", "export", "pushes", "pii")
    made_client = Generated(url, key["Authorization"].removeprefix("Bearer "))
    with made_client.client:
        yield made_client
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_generated_client_does_what_the_readme_shows(server: ServeProcess, generated: Generated) -> None:
    call, models = generated.call, generated.models
    pushed = server.push(PUSH).headers["X-Push-Id"]
    server.push(REPLY)

    send = models.Send(task_id="3313746", mobile="15080921090", template_id="540", sent_at=SENT_AT.isoformat())
    recorded = call("messages.record_messages", body=send)
    assert isinstance(recorded, models.Message)
    many = call("messages.record_messages", body=[send, models.Send(task_id="1", mobile="letters")])
    assert isinstance(many, models.RecordedList)
    assert [item.status for item in many.items] == [200, 422]
    assert many.items[1].error.errors[0].pointer == "#/1/mobile"

    for found in (
        call("messages.list_messages", task_id="3313746"),
        call("messages.search_messages", body=models.MessageFilter(mobile="15080921090")),
    ):
        assert [message.id for message in found.items] == [recorded.id]
        assert (found.items[0].status, found.items[0].latency_seconds, found.items[0].matched) == ("delivered", 4, True)
        assert found.items[0].reported_at == datetime(2026, 11, 23, 1, 14, 3, tzinfo=UTC)
        assert found.next_cursor is None

    message = call("messages.get_message", recorded.id)
    assert [entry.kind for entry in message.timeline] == ["sent", "receipt", "reply", "recorded"]
    nothing = call("messages.get_message", "77")
    assert (type(nothing), nothing.code) == (models.Problem, "not_found")

    first = call("events.list_events", limit=1)
    rest = call("events.list_events", limit=1000, cursor=first.next_cursor)
    events = {event.kind: event for event in (*first.items, *rest.items)}
    assert {kind: type(event) for kind, event in events.items()} == {
        "receipt": models.ReceiptEvent,
        "reply": models.ReplyEvent,
        "message": models.MessageEvent,
    }
    assert (first.has_more, rest.has_more, events["message"].status) == (True, False, "delivered")
    assert call("events.list_events", after=rest.next_cursor).items == []

    report = call("reports.get_delivery_report", from_="2026-11-23", to="2026-11-24", group_by="day,template_id")
    assert [(group.day, group.template_id, group.delivered) for group in report.items] == [("2026-11-23", "540", 1)]
    assert (report.total.delivery_rate, report.timezone) == (1.0, "Asia/Shanghai")

    lines = call("exports.export_replies", format_=models.ExportRepliesFormat.NDJSON)
    assert [json.loads(line)["content"] for line in lines.splitlines()] == ["TD"]
    table = pq.read_table(call("exports.export_replies_parquet").payload)
    assert table.column("content").to_pylist() == ["TD"]
    assert openpyxl.load_workbook(call("exports.export_replies_xlsx").payload).active["A2"].value == "1"
    assert call("exports.export_replies_csv", q="TD").splitlines()[1].startswith("1,")
    assert json.loads(call("exports.export_replies_ndjson").payload.read())["content"] == "TD"

    push = call("pushes.get_push", pushed)
    assert (push.kind, call("pushes.replay_push", pushed)) == ("receipt", push)


def test_generated_client_sends_as_the_readme_shows(generated: Generated) -> None:
    call, models = generated.call, generated.models
    body = models.VerifyCode(mobile="15080921090", template_id="540", code="1234")
    sent, again = (call("sending.send_verify_code", body=body, idempotency_key="order-17") for _ in range(2))
    assert isinstance(sent, models.Message)
    assert (sent.task_id, again.id) == ("3313746", sent.id)
    (balance,) = call("sending.get_balance").items
    assert (balance.account, balance.remain_point, balance.error) == ("default", 241, None)
    today = sent.sent_at.astimezone(SENT_AT.tzinfo).date()
    (billed,) = call("reports.get_billing_report", from_=today, to=today + timedelta(days=1)).items
    assert (billed.day, billed.accepted) == (today, 1)
