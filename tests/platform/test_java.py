"""The platform's page is written in Java: its samples, pushed and sent by JDK 17's own clients."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.platforms import GOOD_ANSWER, MOBILE, stand_in
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.web.test_send_proxy import open_door

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[1] / "java" / "PushSample.java"
SEND_SOURCE = Path(__file__).parents[1] / "java" / "SendSample.java"
BALANCE_SOURCE = Path(__file__).parents[1] / "java" / "BalanceSample.java"
BALANCE_ANSWER = '{"returnStatus":"1 ","message":"成功","remainPoint":"241","taskId":null,"successCounts":null}'
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


def run_sample(source: Path, *arguments: str) -> list[str]:
    """What a sample prints, line by line."""
    run = subprocess.run(["java", source, *arguments], capture_output=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr + run.stdout
    return run.stdout.decode().splitlines()


@needs_java
def test_samples_of_the_platforms_page_hear_the_same_from_the_stand_in_and_through_the_door(tmp_path: Path) -> None:
    def ask(base: str) -> list[str]:
        return run_sample(SEND_SOURCE, base, MOBILE) + run_sample(BALANCE_SOURCE, base)

    # The page's own trap: its sample takes its own "1 " for a failure.
    expected = [GOOD_ANSWER.decode(), "失败!", BALANCE_ANSWER]
    with stand_in() as direct:
        assert ask(f"http://127.0.0.1:{direct.port}") == expected
    with stand_in() as platform, open_door(tmp_path, platform.port) as door:
        assert ask(f"http://127.0.0.1:{door.port}") == expected
        (message,) = door.messages()
    assert (message["task_id"], message["mobile"], message["template_id"]) == ("3313746", MOBILE, "540")


@needs_java
def test_sample_send_of_the_platforms_page_reads_an_unreached_platform_as_a_failure(tmp_path: Path) -> None:
    with open_door(tmp_path, free_port()) as door:
        answer, said = run_sample(SEND_SOURCE, f"http://127.0.0.1:{door.port}", MOBILE)
    assert (json.loads(answer)["returnStatus"], said) == ("0", "失败!")
    assert "nothing was sent" in json.loads(answer)["message"]
