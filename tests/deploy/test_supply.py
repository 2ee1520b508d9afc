"""What the lock file brings along is looked through, and each look can fail."""

from __future__ import annotations

import json
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug import Request, Response

from deploy.lock import read_part
from tests import supply
from tests.harness.http import serve_http
from tests.supply import LICENCES, Part, audit, describe, main, read_licences, read_parts, read_vendored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES: dict[str, Any] = {"allowed": ["MIT", "MIT OR GPL-3.0-only"], "classifiers": {"MIT License": "MIT"}, "stated": {}}
DIGEST = "a" * 64


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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is planted is found as if it were installed."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """What a server with every extra is installed from."""
    (lock := tmp_path / "all.lock").write_text(read_part("all"))
    return lock


def test_everything_that_is_locked_or_vendored_has_a_licence_that_is_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["licences"]) == 0
    listed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert {name.split(" ")[0] for name in listed} > {"flask", "pip-audit", "htmx.org", "@picocss/pico", "uplot"}
    assert all(listed.values())


@pytest.mark.parametrize(
    ("line", "licence"),
    [
        ("License-Expression: MIT", "MIT"),
        ("License-Expression: MIT OR GPL-3.0-only", "MIT OR GPL-3.0-only"),
        ("License: MIT", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
    ],
)
def test_allowed_licence_is_what_the_package_says_of_itself(place: Path, line: str, licence: str) -> None:
    (part, *_) = read_parts(planted(place, line), RULES | {"allowed": [*RULES["allowed"], "0BSD", "Apache-2.0"]})
    assert part == Part(name="planted", version="1.0", hashes=(DIGEST,), licence=licence)


@pytest.mark.parametrize(
    "line",
    [
        "License-Expression: GPL-3.0-only",
        "License-Expression: MIT AND GPL-3.0-only",
        "Classifier: License :: OSI Approved :: BSD License",  # which of them?
        "License: as is, more or less",
        "Summary: says nothing of it",
    ],
)
def test_any_other_licence_or_none_is_refused_but_where_it_is_stated_for_that_version(place: Path, line: str) -> None:
    lock = planted(place, line)
    for stated in ({}, {"planted:0.9": "MIT"}):
        with pytest.raises(ValueError, match=r"not in allow-only licenses was found for package planted:1\.0"):
            read_licences(["planted"], RULES | {"stated": stated})
    (part, *_) = read_parts(lock, RULES | {"allowed": ["MIT", "0BSD", "Apache-2.0"], "stated": {"planted:1.0": "MIT"}})
    assert part.licence == "MIT"


def test_vendored_file_of_another_licence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"license 0BSD of htmx\.org \S+ is not allowed"):
        list(read_vendored(["MIT", "Apache-2.0"]))


def test_bill_of_materials_has_every_part_with_its_licence_and_hashes(tmp_path: Path, served: Path) -> None:
    assert main(["sbom", str(served), str(tmp_path / "sbom.json")]) == 0
    bom = json.loads((tmp_path / "sbom.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"], bom["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "1.6",
        "receiver",
    )
    parts = {one.name: one for one in read_parts(served, tomllib.loads(LICENCES.read_text()))}
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
        describe([broken])


@contextmanager
def advisories() -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """pip-audit's options for a service that knows one thing against `planted`, and whom it was asked about."""
    asked: list[str] = []
    package = {"name": "planted", "ecosystem": "PyPI"}
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]
    fault = {"id": "PYSEC-2026-1", "summary": "bad", "affected": [{"package": package, "ranges": ranges}]}

    def answer(request: Request) -> Response:
        asked.append(request.get_json(force=True)["package"]["name"])
        return Response(json.dumps({"vulns": [fault]} if asked[-1] == "planted" else {}))

    with serve_http(answer) as port:
        yield ("--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/"), asked


def test_known_fault_fails_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supply, "audit", lambda *_: (["planted 1.0: PYSEC-2026-1, mended in 1.1"], []))
    assert main(["faults", "any"]) == 1
    assert capsys.readouterr().err == "known fault: planted 1.0: PYSEC-2026-1, mended in 1.1\n"


@pytest.mark.thorough
def test_known_fault_of_a_locked_package_is_told(tmp_path: Path) -> None:
    with advisories() as (options, _):
        known, unasked = audit(planted(tmp_path), *options)
    assert (known, unasked) == (["planted 1.0: PYSEC-2026-1, mended in 1.1"], [])


@pytest.mark.thorough
def test_every_package_that_is_served_with_is_asked_about(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with advisories() as (options, asked):
        assert main(["faults", str(served), *options]) == 0
    assert capsys.readouterr().out.endswith("0 known faults, 0 not audited\n")
    parts = read_parts(served, tomllib.loads(LICENCES.read_text()))
    assert set(asked) == {part.name for part in parts if part.source == "pypi"}


@pytest.mark.thorough
def test_service_that_cannot_be_reached_is_told_and_stops_nobody(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["faults", str(served), "--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:1/"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("NOT AUDITED: ")
    assert told.out == "0 known faults, 1 not audited\n"
