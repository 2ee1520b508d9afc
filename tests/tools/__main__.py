"""`python -m tests.tools`: install each tool's environment by its lock; say versions, and what stays out and why."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

from tests.tools.environments import INSTALLED, left_out, program

_HERE = Path(__file__).parent
_LOCKS = _HERE / "locks"
_NPM = _HERE / "npm"
_STAMP = "installed"
# What the suite holds, beside what these need.
_SHOWN = {
    "load": "dlt duckdb pandas polars pyarrow fastexcel openpyxl"
    " openapi-python-client openapi-generator-cli standardwebhooks svix",
    "dbt": "dbt-core dbt-duckdb dbt-postgres duckdb duckdb-extension-httpfs duckdb-extension-postgres-scanner",
    "singer": "tap-rest-api-msdk singer-sdk",
}


def main() -> None:
    """Install what has changed; raise CalledProcessError where a registry does not give it."""
    INSTALLED.mkdir(exist_ok=True)
    for environment, shown in _SHOWN.items():
        _install_python(environment)
        print(_python_versions(environment, shown.split()))
    _install_npm()
    listed = subprocess.run(
        ["npm", "ls", "--depth=0"], cwd=INSTALLED / "npm", capture_output=True, text=True, check=False
    )
    print("npm: " + " ".join(line.split()[-1] for line in listed.stdout.splitlines()[1:] if "@" in line))
    for tool, reason in left_out().items():
        print(f"left out: {tool}, {reason}")


def _install_python(environment: str) -> None:
    place, lock = INSTALLED / environment, _LOCKS / f"{environment}.lock"
    if _is_current(place, lock):
        return
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    pip = [program(environment, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The lock is whole. Without `--no-deps`, pip asks for a hash of an extra that is in it under its plain name.
    subprocess.run([*pip, "--no-deps", "--require-hashes", "--requirement", str(lock)], check=True)
    shutil.copy(lock, place / _STAMP)


def _install_npm() -> None:
    place, lock = INSTALLED / "npm", _NPM / "package-lock.json"
    if _is_current(place, lock):
        return
    place.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_NPM / name, place)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=place, check=True)
    shutil.copy(lock, place / _STAMP)


def _is_current(place: Path, lock: Path) -> bool:
    stamp = place / _STAMP
    return stamp.exists() and stamp.read_bytes() == lock.read_bytes()


def _python_versions(environment: str, packages: list[str]) -> str:
    code = "import sys; from importlib.metadata import version; print(*(f'{n}@{version(n)}' for n in sys.argv[1:]))"
    shown = subprocess.run(
        [program(environment, "python"), "-c", code, *packages], capture_output=True, text=True, check=True
    )
    return f"{environment}: {shown.stdout.strip()}"


if __name__ == "__main__":
    main()
