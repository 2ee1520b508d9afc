"""Where the tools are installed, apart from ours and from each other, and how they are run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
INSTALLED = ROOT / ".venv-tools"
_NODE_MODULES = INSTALLED / "npm" / "node_modules"
_RUN_SECONDS = 170
_SHOWN_CHARS = 3000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# None of them may ask for news, or report to its maker.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}


# Programs that are Debian's, and no registry's of packages: by name, what brings them.
_OF_DEBIAN = {
    "java": "openjdk-17-jre-headless",  # for openapi-generator
    "promtool": "prometheus",
    "soffice": "libreoffice-calc-nogui",
}
_NOT_TO_BE_HAD = {"@quobix/vacuum": "its installation fetches a binary from outside the registry"}


def left_out() -> dict[str, str]:
    """Return the tools that are left out on this machine, and why."""
    lacking = {name: package for name, package in _OF_DEBIAN.items() if shutil.which(name) is None}
    return {name: f"for want of Debian's {package}" for name, package in lacking.items()} | _NOT_TO_BE_HAD


def program(environment: str, name: str) -> str:
    """Return the path of a program of one of the Python environments."""
    return str(INSTALLED / environment / "bin" / name)


def install_duckdb_extensions(place: Path) -> None:
    """Put DuckDB's extensions where it looks in its home, as `INSTALL` does from its own site."""
    for source in (INSTALLED / "dbt").glob("lib/*/site-packages/duckdb_extension_*/extensions/*/*.duckdb_extension"):
        name, version = source.name, source.parent.name
        target = place / ".duckdb/extensions" / version / f"linux_{_ARCHITECTURES[os.uname().machine]}" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def node_program(name: str) -> list[str]:
    """Return the command that runs a program of the npm packages, by the Node that came with them."""
    return [*node_command(), str((_NODE_MODULES / ".bin" / name).resolve())]


def node_command() -> list[str]:
    """Return the command of Node: the one among the packages, else the machine's."""
    packaged = _NODE_MODULES / ".bin" / "node"
    return [str(packaged) if packaged.exists() else shutil.which("node") or "node"]


def node_place(place: Path) -> Path:
    """Make a directory a place where programs for Node find the npm packages."""
    (place / "node_modules").symlink_to(_NODE_MODULES)
    (place / "package.json").write_text('{"type": "module"}')
    return place


def run(
    command: list[str], place: Path, environment: dict[str, str], *, stdin: str | None = None, fails: bool = False
) -> str:
    """Run a tool in a directory of its own, which is its home too; return what it printed.

    Raises AssertionError with all that it printed where it fails.
    """
    # dlt has its state elsewhere where root runs it.
    own = {"HOME": str(place), "DLT_DATA_DIR": str(place / ".dlt")}
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        command,
        cwd=place,
        env=kept | _QUIET | own | environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=_RUN_SECONDS,
    )
    assert (done.returncode != 0) == fails, f"{done.stdout[-_SHOWN_CHARS:]}\n{done.stderr[-_SHOWN_CHARS:]}"
    return done.stdout
