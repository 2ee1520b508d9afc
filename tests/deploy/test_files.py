"""What is in deploy/: that it fits the code, and itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from receiver import __version__

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_scripts_have_no_fault_that_shellcheck_knows() -> None:
    scripts = [*DEPLOY.glob("*.sh"), DEPLOY / "bin/receiver", *(ROOT / ".ci").iterdir()]
    checked = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert checked.stdout == ""
    assert checked.returncode == 0


def test_everything_names_this_version() -> None:
    # The page on upgrades has the next version, too.
    apart = {"upgrade.md", *(page.name for page in DEPLOY.glob("docs/decisions/*.md"))}
    pages = [page for page in (*DEPLOY.glob("*.md"), *DEPLOY.glob("docs/**/*.md")) if page.name not in apart]
    named = {
        (page.name, version)
        for page in pages
        for version in re.findall(r"\breceiver[-:](\d+\.\d+\.\d+)", page.read_text(encoding="utf-8"))
    }
    assert {version for _, version in named} == {__version__}, sorted(named)
    tags = re.findall(r"name: receiver\n.*\n +newTag: (\S+)", (DEPLOY / "kubernetes/kustomization.yaml").read_text())
    assert tags == [__version__]
    (newest, *_) = re.findall(r"^## (\d\S*) – ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest == __version__


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_bundle_installs_without_a_network(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "EXTRAS": "postgres"}
    subprocess.run([DEPLOY / "bundle.sh", tmp_path], env=environment, check=True)
    (bundle,) = tmp_path.glob("receiver-*-bundle.tar.gz")
    subprocess.run(["tar", "-xzf", bundle, "-C", tmp_path], check=True)
    (materials,) = tmp_path.glob("receiver-*/receiver.cdx.json")
    wheels = {wheel.name.split("-")[0].lower() for wheel in materials.parent.glob("wheels/*.whl")}
    named = {part["name"].replace("-", "_") for part in json.loads(materials.read_text())["components"]}
    assert wheels < named
    (installer,) = tmp_path.glob("receiver-*/install.sh")
    offline = ["unshare", "--map-root-user", "--net"]
    subprocess.run([*offline, installer, tmp_path / "program"], check=True)
    served = {"PATH": os.environ["PATH"], "RECEIVER_DATA_DIR": str(tmp_path / "data")}
    upgraded = subprocess.run(
        [tmp_path / "program/bin/receiver", "db", "upgrade"], env=served, capture_output=True, text=True, check=False
    )
    assert upgraded.returncode == 0, upgraded.stderr
