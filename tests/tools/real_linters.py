"""Linters of OpenAPI, and Prometheus' own checker, find no error in what the server and the repository give."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.tools.environments import ROOT, node_program, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.house import House

_RULES = ROOT / "deploy/prometheus/alerts.yml"
_CASES = ROOT / "deploy/prometheus/alerts_test.yml"
_PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(_PROMTOOL is None, reason="left out: promtool (Debian's prometheus)")


@pytest.fixture
def description(embedded_house: House, tmp_path: Path) -> str:
    """The description that the server gives, as a file."""
    (tmp_path / "openapi.json").write_text(json.dumps(embedded_house.ask("openapi.json")))
    return "openapi.json"


def test_redocly_finds_no_error(description: str, tmp_path: Path) -> None:
    run([*node_program("redocly"), "lint", description, "--extends", "recommended"], tmp_path, {})


def test_spectral_finds_no_error(description: str, tmp_path: Path) -> None:
    (tmp_path / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    run([*node_program("spectral"), "lint", description, "--fail-severity", "error"], tmp_path, {})


@needs_promtool
def test_promtool_finds_nothing_in_the_metrics(house: House) -> None:
    metrics = house.process.request("GET", "/metrics").body
    checked = subprocess.run([str(_PROMTOOL), "check", "metrics"], input=metrics, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", "rules", _RULES), ("test", "rules", _CASES)], ids=["check", "test"])
def test_promtool_takes_the_rules_and_their_tests(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    run([str(_PROMTOOL), *map(str, arguments)], tmp_path, {})
