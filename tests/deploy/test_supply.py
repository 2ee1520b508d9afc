"""What the lock files bring along is looked through, and each look can fail."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests import supply
from tests.supply import LOCK, SERVED, Part, audit, describe, main, read_lock, read_vendored, unfit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIT = frozenset({"MIT", "BSD-3-Clause"})
DIGEST = "a" * 64


def part(licence: str | None, name: str = "planted") -> Part:
    return Part(name=name, version="1.0", hashes=(DIGEST,), licence=licence)


def planted(place: Path, *lines: str) -> Path:
    """A lock of one package, which is installed and says this of itself."""
    told = place / "planted-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: planted", "Version: 1.0", *lines, ""]))
    (place / "lock").write_text(
        f"planted==1.0 \\\n    --hash=sha256:{DIGEST}\n    # via nobody\n"
        f"foreign==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{DIGEST}\n"
    )
    return place / "lock"


def test_everything_that_is_locked_or_vendored_has_a_licence_that_is_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["licences"]) == 0, capsys.readouterr().err
    assert {part.name for part in read_vendored()} == {"htmx.org", "@picocss/pico", "uplot", "swagger-ui-dist"}
    assert {"flask", "pip-audit"} < {part.name for part in read_lock(LOCK)}


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: GPL-3.0-only"], "GPL-3.0-only"),
        (["License-Expression: MIT", "License: GPL-3.0-only"], "MIT"),
        (["License: MIT"], "MIT"),
        (["Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (["Classifier: License :: OSI Approved :: BSD License"], None),  # which of them?
        (["License: as is, more or less"], None),
        ([], None),
    ],
)
def test_licence_is_what_the_package_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], licence: str | None
) -> None:
    lock = planted(tmp_path, *lines)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(read_lock(lock)) == [part(licence)]


@pytest.mark.parametrize("licence", ["MIT", "MIT OR GPL-3.0-only", "MIT AND BSD-3-Clause"])
def test_allowed_licence_is_fit(licence: str) -> None:
    assert unfit([part(licence)], allowed=MIT, stated={}) == []
    assert unfit([part(None)], allowed=MIT, stated={"planted": licence}) == []


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "GPL-2.0-only WITH Classpath-exception-2.0", "Mine"]
)
def test_any_other_licence_is_told_by_the_name_of_its_package(licence: str) -> None:
    told = f"planted 1.0: {licence} is not allowed"
    assert unfit([part("MIT", "good"), part(licence)], allowed=MIT, stated={}) == [told]
    assert unfit([part(None)], allowed=MIT, stated={"planted": licence}) == [told]


def test_package_that_states_no_licence_and_one_that_does_by_now_are_told() -> None:
    (without,) = unfit([part(None)], allowed=MIT, stated={})
    assert without.startswith("planted 1.0: states no licence")
    (by_now,) = unfit([part("MIT")], allowed=MIT, stated={"planted": "MIT"})
    assert by_now.startswith("planted 1.0: says MIT by itself now")


def test_bill_of_materials_has_every_part_with_its_licence_and_hashes(tmp_path: Path) -> None:
    assert main(["sbom", str(SERVED), str(tmp_path / "sbom.json")]) == 0
    bom = json.loads((tmp_path / "sbom.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"], bom["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "1.6",
        "receiver",
    )
    parts = {one.name: one for one in (*read_lock(SERVED), *read_vendored())}
    assert {one["name"] for one in bom["components"]} == parts.keys()
    for one in bom["components"]:
        (files,) = one["externalReferences"]
        assert {digest["content"] for digest in files["hashes"]} == set(parts[one["name"]].hashes)
        assert one["licenses"], one["name"]
    assert {one["purl"] for one in bom["components"]} > {"pkg:npm/%40picocss/pico@2.1.1"}
    (edges,) = (one["dependsOn"] for one in bom["dependencies"] if one["ref"] == "receiver")
    assert len(edges) == len(parts)


def test_bill_of_materials_that_is_not_valid_is_refused() -> None:
    broken = Part(name="planted", version="1.0", hashes=("not a digest",), licence="MIT")
    with pytest.raises(ValueError, match="not a valid CycloneDX"):
        describe([broken], stated={})


class Advisories(BaseHTTPRequestHandler):
    """Knows one thing against `planted`, and nothing against others, as OSV answers."""

    asked: list[str]

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        self.asked.append(wanted)
        fault = {
            "id": "PYSEC-2026-1",
            "summary": "bad",
            "affected": [
                {
                    "package": {"name": "planted", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
                }
            ],
        }
        body = json.dumps({"vulns": [fault]} if wanted == "planted" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def advisories() -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """pip-audit's options for a service of our own, and whom it was asked about."""
    asked: list[str] = []
    handler = type("Asked", (Advisories,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield ("--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/"), asked
        finally:
            server.shutdown()
            thread.join()


def test_known_fault_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supply, "audit", lambda *_: (["planted 1.0: PYSEC-2026-1, mended in 1.1"], []))
    assert main(["faults"]) == 1
    assert capsys.readouterr().err == "known fault: planted 1.0: PYSEC-2026-1, mended in 1.1\n"


@pytest.mark.thorough
def test_known_fault_of_a_locked_package_is_told(tmp_path: Path) -> None:
    with advisories() as (options, _):
        known, unasked = audit(*options, lock=planted(tmp_path))
    assert (known, unasked) == (["planted 1.0: PYSEC-2026-1, mended in 1.1"], [])


@pytest.mark.thorough
def test_every_package_that_is_served_with_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with advisories() as (options, asked):
        assert main(["faults", *options]) == 0
    assert capsys.readouterr().out.endswith("0 known faults, 0 not audited\n")
    assert set(asked) == {part.name for part in read_lock(SERVED)}


@pytest.mark.thorough
def test_service_that_cannot_be_reached_is_told_and_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faults", "--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:1/"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("NOT AUDITED: ")
    assert told.out == "0 known faults, 1 not audited\n"
