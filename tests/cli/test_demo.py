"""`receiver simulate demo` shows everything, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.bench.usage import is_running, list_tree
from tests.harness.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


def test_demo_fills_answers_sends_and_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "receiver", "simulate", "demo", "--messages", "200", "--port", str(free_port())]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            told = ""
            while "Ctrl-C stops it" not in told:
                line = process.stdout.readline()
                assert line, told
                told += line
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/readyz", told)[0])
            key = re.findall(r"key +(rcv_\S+)", told)[0]

            def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

            for path in re.findall(rf"'http://127\.0\.0\.1:{port}(/api/\S+)'", told):
                status, found = ask("GET", path)
                assert (status, bool(found["items"])) == (200, True), path
            body = json.loads(re.findall(r"-d '(\{.*?\})' http", told.replace("\\\n", ""))[0])
            status, message = ask("POST", "/api/v1/verify-codes", body)
            assert (status, message["matched"]) == (201, True)
            deadline = time.monotonic() + 30
            while message["status"] == "pending":
                assert time.monotonic() < deadline
                message = ask("GET", f"/api/v1/messages/{message['id']}?wait=10")[1]
            children = list_tree(process.pid)
            assert len(children) >= 3
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(40)
    assert code == 0
    assert not any(is_running(pid) for pid in children)
    assert list(tmp_path.iterdir()) == []
