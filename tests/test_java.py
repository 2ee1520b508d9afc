"""The platform's page is written in Java: its samples, pushed and sent by JDK 17's own clients."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.platforms import GOOD_ANSWER, MOBILE, stand_in
from tests.server import ServeProcess
from tests.test_door import open_door

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parent / "java" / "PushSample.java"
SEND_SOURCE = Path(__file__).parent / "java" / "SendSample.java"
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs a JDK 17")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServeProcess]:
    with ServeProcess(tmp_path) as process:
        yield process


@needs_java
def test_samples_of_the_platforms_page_are_stored_matched_and_returned(served: ServeProcess) -> None:
    key = served.make_key("read", "messages:write", "pushes", "pii")
    send = b'{"task_id": "123", "mobile": "15080921090", "sent_at": "2019-07-23T16:59:56"}'
    json_headers = {**key, "Content-Type": "application/json"}
    assert served.request("POST", "/api/v1/messages", send, json_headers).status == 201
    for _ in range(2):
        url = f"http://127.0.0.1:{served.port}{served.target}"
        pushed = subprocess.run(["java", SOURCE, url], capture_output=True, text=True, check=False, timeout=100)
        assert (pushed.returncode, pushed.stdout) == (0, "200 ok\n200 ok\n"), pushed.stderr
    (message,) = served.request("GET", "/api/v1/messages", headers=key).json["items"]
    assert (message["status"], message["latency_seconds"]) == ("delivered", 4.0)
    assert (message["receipt_count"], message["reply_count"]) == (1, 1)
    (receipt,) = served.request("GET", "/api/v1/receipts", headers=key).json["items"]
    assert (receipt["mobile"], receipt["message_id"], receipt["copies"]) == ("1508092****", message["id"], 2)
    (reply,) = served.request("GET", "/api/v1/replies", headers=key).json["items"]
    assert (reply["content"], reply["replied_at"], reply["copies"]) == ("收到", "2019-07-23T09:00:00Z", 2)
    assert len(served.request("GET", "/api/v1/pushes", headers=key).json["items"]) == 4


@needs_java
def test_sample_send_of_the_platforms_page_goes_to_the_stand_in_and_through_the_door(tmp_path: Path) -> None:
    def send(base: str) -> bytes:
        sent = subprocess.run(["java", SEND_SOURCE, base, MOBILE], capture_output=True, check=False, timeout=100)
        assert sent.returncode == 0, sent.stderr + sent.stdout
        return sent.stdout.rstrip()

    with stand_in() as direct:
        assert send(f"http://127.0.0.1:{direct.port}") == GOOD_ANSWER
    with stand_in() as platform, open_door(tmp_path, platform.port) as door:
        assert send(f"http://127.0.0.1:{door.port}") == GOOD_ANSWER
        (message,) = door.messages()
    assert (message["task_id"], message["mobile"], message["template_id"]) == ("3313746", MOBILE, "540")
