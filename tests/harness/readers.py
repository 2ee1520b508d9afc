"""Every reader there is, asked once: whatever came in, and whatever one row is like, each has to answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from receiver.alerting import figures
from receiver.maintenance import erase, prune
from receiver.maintenance.backup import make_backup
from receiver.maintenance.retention import RetentionKind
from receiver.maintenance.verify import verify
from receiver.messages import queries
from receiver.messages.events import Position, list_events
from receiver.messages.export_files import EXPORTS, FileFormat, iter_file
from receiver.messages.queries import Filter, Page
from tests.conftest import make_key
from tests.web.console.staff import Staff, log_in

if TYPE_CHECKING:
    from pathlib import Path

    from flask import Flask
    from werkzeug.test import TestResponse

    from receiver.runtime import Runtime

API = "/api/v1"
LISTS = ("messages", "receipts", "replies", "pushes")
UNITS = ("month", "day", "hour", "template_id", "account", "day,template_id")
PAGES = (
    "/", "/messages", "/replies", "/pushes", "/reports", "/status", "/setup", "/access", "/exports", "/banner",
    "/opt-outs", "/opt-outs?opt_out_review=true",
    "/exports/messages?format=xlsx", "/exports/replies?format=csv",
)  # fmt: skip
ODD_TIMES = ("0001-01-01T00:00:00", "1970-01-01T00:00:00Z", "2026-11-29T00:00:00Z", "9999-12-31T23:59:59Z")


@dataclass
class Readers:
    """All of them on one runtime."""

    runtime: Runtime
    app: Flask
    place: Path  # for backups

    def __post_init__(self) -> None:
        self.client = self.app.test_client()
        self.key = {"Authorization": make_key(self.runtime)}
        self.staff: Staff = log_in(self.app, self.runtime, "admin")

    def read_all(self) -> dict[str, set[str]]:
        """Ask every one; fail where one does not answer. Return the ids that each list has."""
        self.runtime.webhook_worker.run_now()
        found = self.read_lists()
        self._filters()
        self._events()
        self._one_by_one(found)
        self._reports()
        self._exports()
        self._pages(found)
        self._commands()
        return found

    def read_lists(self) -> dict[str, set[str]]:
        """Return the ids that each list has."""
        return {name: self._walk(name) for name in LISTS}

    def get(self, path: str) -> TestResponse:
        """Ask the API, and fail where it does not answer with 200."""
        answer = self.client.get(API + path, headers=self.key)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        return answer

    def _walk(self, name: str) -> set[str]:
        ids: list[str] = []
        cursor = ""
        while True:
            page = json.loads(self.get(f"/{name}?limit=7{cursor}").text)
            ids += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                assert len(ids) == len(set(ids))
                return set(ids)
            cursor = f"&cursor={page['next_cursor']}"

    def _filters(self) -> None:
        for moment in ODD_TIMES:
            self.get(f"/messages?sent_from={moment}")
            self.get(f"/messages?sent_to={moment}")
            for name in ("receipts", "replies", "pushes"):
                self.get(f"/{name}?received_from={moment}")
                self.get(f"/{name}?received_to={moment}")
        for status in ("pending", "delivered", "failed", "unknown", "no_receipt", "refused", "sending"):
            self.get(f"/messages?status={status}")

    def _events(self) -> None:
        after = ""
        while True:
            page = json.loads(self.get(f"/events?limit=5{after}").text)
            if not page["items"]:
                break
            after = f"&after={page['next_cursor']}"
        self.runtime.ask(lambda connection: list_events(connection, Position(), 100_000, None, self.runtime.clock()))

    def _one_by_one(self, found: dict[str, set[str]]) -> None:
        for name in ("messages", "pushes"):
            for row_id in found[name]:
                self.get(f"/{name}/{row_id}")

    def _reports(self) -> None:
        now = self.runtime.now()
        spans = [
            ("1999-12-01", "2000-01-01"),
            (f"{now - timedelta(days=20):%Y-%m-%d}", f"{now + timedelta(days=3):%Y-%m-%d}"),
        ]
        for begin, end in spans:
            for unit in UNITS:
                self.get(f"/reports/delivery?from={begin}T00:00:00Z&to={end}T00:00:00Z&group_by={unit}")

    def _exports(self) -> None:
        for name in EXPORTS:
            for form in FileFormat:
                with self.runtime.exporting() as connection:
                    pieces = iter_file(
                        connection, name, form, Filter(), self.runtime.clock(), in_full=True,
                        zone=self.runtime.settings.timezone,
                    )  # fmt: skip
                    assert b"".join(pieces) or form in (FileFormat.CSV, FileFormat.NDJSON)

    def _pages(self, found: dict[str, set[str]]) -> None:
        for path in PAGES:
            with self.staff.get(path) as answer:  # closed at once: a file has one of few places until then
                assert answer.status_code == 200, (path, answer.status_code, answer.get_data(as_text=True)[:300])
        for message_id in found["messages"]:
            assert self.staff.get(f"/messages/{message_id}").status_code == 200
        for push_id in found["pushes"]:
            assert self.staff.get(f"/pushes/{push_id}").status_code == 200
        rows = self.runtime.ask(
            lambda connection: queries.list_messages(connection, Page(limit=20), self.runtime.clock())
        )
        for row in rows:
            self.staff.look_up(row.mobile, "30d")

    def _commands(self) -> None:
        runtime = self.runtime
        self.findings = {finding.name: finding for finding in verify(runtime.database, runtime.admission.read_again)}
        if runtime.settings.embedded:
            made = make_backup(runtime.settings, self.place, verify=lambda _: ())
            assert made.manifest.rows
            for path in (*made.path.rglob("*"), made.path):
                path.unlink() if path.is_file() else None
            made.path.rename(self.place / f"old-{len(list(self.place.iterdir()))}")
        long_ago = dict.fromkeys(RetentionKind, runtime.now().replace(year=2001))
        plan = prune.Plan(kinds=tuple(RetentionKind), cutoffs=long_ago)
        runtime.ask(partial(prune.look, plan=plan))
        erase.find_traces(runtime.database, "15080929999", runtime.admission.read_again)
        runtime.ask(partial(figures.find_stored_figures, now=runtime.now(), accounts=("default",)))
