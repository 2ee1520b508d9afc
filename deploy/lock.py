"""The parts of requirements.lock: one file for all, in pip's own form, of which an installation takes the beginning.

python deploy/lock.py postgres            print what serves, with the extra postgres
python deploy/lock.py all                 print that with every extra
python deploy/lock.py make [--upgrade]    write the file anew, by uv: versions stay while they can, or are the newest

The whole file is what tests and checks need. pip before 26.1 takes neither pylock.toml nor a constraint's hashes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"
PARTS = ("postgres", "all")
_HEAD = """\
# Every version and hash, for any platform. `make lock` writes this file, deploy/lock.py prints its parts.
# The whole is for developers. Up to the end of "postgres" it serves; up to the end of "all", with every extra.
"""
# Whatever is installed can also build the wheel, without a network.
_WANTED = {
    "postgres": ["--extra", "postgres", "--group", "build"],
    "all": ["--all-extras", "--group", "build"],
    "development": ["--all-extras", "--group", "build", "--group", "test", "--group", "check"],
}
_ONE = re.compile(r"^[\w.-]+==.*\n(?:[ ]+.*\n)*", re.MULTILINE)


def read_part(name: str) -> str:
    """Return what the lock file has for an installation. Raises KeyError for a name that is no part's."""
    if name not in PARTS:
        raise KeyError(name)
    text, end = LOCK.read_text(), f"# end: {name}\n"
    return text[: text.index(end) + len(end)]


def join(compiled: dict[str, str]) -> str:
    """Return the file of the parts, each of which has all of the ones before. Raises ValueError where one has not."""
    text, before = _HEAD, dict[str, str]()
    for name, part in compiled.items():
        now = {_pin(one): one for one in _ONE.findall(part)}
        if lost := before.keys() - now.keys():
            raise ValueError(f"{name} lacks, or has by another version or condition: {', '.join(sorted(lost))}")
        text += "".join(one for pin, one in now.items() if pin not in before)
        text += f"# end: {name}\n" if name in PARTS else ""
        before = now
    return text


def _pin(one: str) -> str:
    return one.partition("\\")[0].strip()


def _compile(*, upgrade: bool) -> dict[str, str]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", *(["--upgrade"] if upgrade else ["--no-upgrade"])]
    compiled: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        bound: list[str] = []
        for name, wanted in _WANTED.items():
            made = Path(folder, f"{name}.lock")
            made.write_text(LOCK.read_text())  # what uv keeps to while it can
            subprocess.run(
                [*command, *bound, *wanted, "--output-file", str(made), "pyproject.toml"], cwd=LOCK.parent, check=True
            )
            compiled[name] = made.read_text()
            bound = ["--constraint", str(made)]
    return compiled


def main(arguments: list[str]) -> int:
    """Print a part, or write the file; return the exit code."""
    match arguments:
        case [name] if name in PARTS:
            sys.stdout.write(read_part(name))
        case ["make", *options] if options in ([], ["--upgrade"]):
            LOCK.write_text(join(_compile(upgrade=bool(options))))
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
