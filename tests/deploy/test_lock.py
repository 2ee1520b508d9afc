"""The lock file: its parts are what pyproject.toml wants, and pip takes each of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import LOCK, PARTS, join, main, read_part

if TYPE_CHECKING:
    from pathlib import Path

PROJECT: dict[str, Any] = tomllib.loads((LOCK.parent / "pyproject.toml").read_text())
TEXTS = {**{part: read_part(part) for part in PARTS}, "development": LOCK.read_text()}


def pins(text: str) -> list[Requirement]:
    lines = text.replace("\\\n", " ").splitlines()
    return [Requirement(line.split(" --hash")[0]) for line in lines if line and not line.lstrip().startswith("#")]


def wanted(part: str) -> list[Requirement]:
    """What pyproject.toml wants of a part by name."""
    extras, groups = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
    named = [*PROJECT["project"]["dependencies"], *groups["build"]]
    named += [one for extra in (["postgres"] if part == "postgres" else extras) for one in extras[extra]]
    if part == "development":
        named += [*groups["test"], *groups["check"]]
    return [Requirement(one) for one in named]


@pytest.mark.parametrize("part", TEXTS)
def test_each_part_has_what_the_project_wants_of_it(part: str) -> None:
    locked = {canonicalize_name(pin.name): pin for pin in pins(TEXTS[part])}
    assert len(locked) == len(pins(TEXTS[part])), "one of them is there twice"
    for one in wanted(part):
        (version,) = locked[canonicalize_name(one.name)].specifier
        assert version.operator == "=="
        assert one.specifier.contains(version.version), one


def test_a_server_gets_nothing_of_another_extra_or_of_the_tests() -> None:
    names = {part: {pin.name for pin in pins(text)} for part, text in TEXTS.items()}
    assert {"pyarrow", "authlib", "pytest"}.isdisjoint(names["postgres"])
    assert {"pyarrow", "authlib"} < names["all"]
    assert "pytest" in names["development"] - names["all"]


def test_wheels_are_built_by_what_the_build_of_others_takes() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


@pytest.mark.parametrize("part", TEXTS)
def test_pip_takes_each_part_by_its_hashes(part: str, tmp_path: Path) -> None:
    """It is all installed here, so pip asks no registry."""
    (lock := tmp_path / "lock").write_text(TEXTS[part])
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--dry-run"]
    done = subprocess.run(
        [*command, "--no-index", "--require-hashes", "--requirement", lock],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Would install" not in done.stdout


def test_parts_that_disagree_are_refused() -> None:
    one, two, other = (
        "one==1 \\\n    --hash=sha256:aa\n",
        "two==1 \\\n    --hash=sha256:bb\n",
        "one==2 \\\n    --hash=sha256:cc\n",
    )
    joined = join({"postgres": one, "all": one + two, "development": one + two})
    assert joined.endswith(f"{one}# end: postgres\n{two}# end: all\n")
    with pytest.raises(ValueError, match="all lacks, or has by another version or condition: one==1"):
        join({"postgres": one, "all": other, "development": other})


@pytest.mark.parametrize("arguments", [[], ["extras"], ["make", "--downgrade"], ["postgres", "all"]])
def test_part_that_is_none_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""
