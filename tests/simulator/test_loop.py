"""The whole loop: sends through receiver and door, receipts and replies from a stand-in that misbehaves in every way
it can, the server killed in the middle. The stand-in's ledger says what must be there."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from receiver.simulator import PushFaults, PushTarget, Rules, Simulator
from receiver.simulator.check import ReceiverApi, await_agreement
from tests.harness.platforms import APP_ID, APP_KEY, CODE
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess
from tests.web.test_send_proxy import SEND

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = int(os.environ.get("RECEIVER_TEST_LOOP", "250"))  # 100,000 were sent by hand
SENDERS = 8
AGREES_WITHIN_SECONDS = 60 + MESSAGES / 200
EVERYTHING = PushFaults(
    failures=0.1, lost=0.05, flips=0.1, replies=0.3, duplicates=0.2, early=0.2, masked=0.1, gb18030=0.2, in_query=0.2,
    slow=0.01, reorder=True, max_delay=timedelta(days=1), hurry=True,
)  # fmt: skip


class Senders:
    """Send codes, every other one through the door; what was asked for is never asked for again."""

    def __init__(self, process: ServeProcess, door_port: int, count: int) -> None:
        self._process = process
        self._door_port = door_port
        self._numbers = iter(range(count))
        self._next = threading.Lock()
        self.done = 0
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def await_done(self, count: int) -> None:
        while self.done < count and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.05)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connections: dict[int, http.client.HTTPConnection] = {}
        while True:
            with self._next:
                number = next(self._numbers, None)
            if number is None:
                break
            port = (self._process.port, self._door_port)[number % 2]
            connection = connections.setdefault(port, http.client.HTTPConnection("127.0.0.1", port, timeout=60))
            try:
                _connect(connection)
                self._send(connection, number, through_door=port == self._door_port)
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.05)
            self.done += 1
        for connection in connections.values():
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, number: int, *, through_door: bool) -> None:
        mobile = f"156{number // 3:08d}"
        if through_door:
            form = {"appId": APP_ID, "appKey": APP_KEY, "phone": mobile, "templateId": "540", "variables": CODE}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", SEND, urlencode(form), headers)
        else:
            body = json.dumps({"mobile": mobile, "template_id": "540", "code": CODE})
            headers = {"Content-Type": "application/json", "Idempotency-Key": str(number), **self._process.key}
            connection.request("POST", "/api/v1/verify-codes", body, headers)
        answer = connection.getresponse()
        answer.read()
        self.statuses[answer.status] += 1


def _connect(connection: http.client.HTTPConnection) -> None:
    """Connect, once somebody listens again."""
    while connection.sock is None:
        try:
            connection.connect()
        except ConnectionRefusedError:
            time.sleep(0.1)


@pytest.mark.thorough
@pytest.mark.timeout(300 + MESSAGES / 20)
def test_ledger_agrees_after_everything_and_two_kills(tmp_path: Path, database_url: str) -> None:
    door_port, platform_port = free_port(), free_port()
    process = ServeProcess(
        tmp_path,
        database_url if "postgresql" in database_url else "",
        environment={
            "RECEIVER_SEND_PROXY_BIND": f"127.0.0.1:{door_port}",
            "RECEIVER_PLATFORM_URL": f"http://127.0.0.1:{platform_port}/smsApi",
            "RECEIVER_PLATFORM_CREDENTIALS": f"default:{APP_ID}:{APP_KEY}",
        },
    )
    process.upgrade()
    process.start()
    process.key = process.make_key("messages:send", "read", "pii")
    push_url = f"http://127.0.0.1:{process.port}{process.target}"
    target = PushTarget(receipt_url=push_url, reply_url=push_url, connections=8, burst=5, retries=200)
    rules = Rules(balance=10**6, unknown_every=37)
    senders = Senders(process, door_port, MESSAGES)
    with Simulator(
        bind=("127.0.0.1", platform_port), rules=rules, how=EVERYTHING, target=target, seed=4, first_task_id=10**9
    ) as platform:
        senders.start()
        for share in (0.3, 0.6):
            senders.await_done(int(MESSAGES * share))
            master, worker = process.await_worker()
            process.kill(master)
            os.kill(worker, 9)
            process.await_gone([worker])
            process.start()
        senders.join()
    done = platform.ledger.summary()
    assert done["sent"] > MESSAGES * 0.8 - 4 * SENDERS
    assert done["refused"] > MESSAGES / 60
    api = ReceiverApi(f"http://127.0.0.1:{process.port}", process.key["Authorization"].partition(" ")[2])
    ends = itertools.count()
    deadline = time.monotonic() + AGREES_WITHIN_SECONDS

    def pause() -> bool:
        next(ends)
        time.sleep(0.5)
        return time.monotonic() < deadline

    found = await_agreement(platform.ledger, api, pause)
    print(done, dict(senders.statuses), found.as_dict())
    assert found.ok, found.as_dict()
    assert found.counts["receipts"] > 0
    assert found.counts["replies"] > 0
    assert found.counts["in_doubt"] <= 2 * SENDERS
    process.stop()
    assert process.run("verify").returncode == 0
