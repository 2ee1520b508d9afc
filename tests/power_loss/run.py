"""Cuts the power at many places of a record, and looks for every acknowledged push on each disk found then."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.config import SPOOL_DIR
from receiver.core import Push
from receiver.intake.spool_records import read_file
from tests.harness.server import ServeProcess
from tests.power_loss.disk import Content, Disk, Names
from tests.power_loss.recorder import Entry, Kind
from tests.power_loss.scenarios import DATABASE, await_true, environment, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.power_loss.scenarios import Scenario

_MEMORY = Path("/dev/shm")
_SEED = 20261129  # the same record and the same number of images give the same images
_WHOLE_EVERY = 10  # images: SQLite's own check of all of the file
_CONTROL_PART = 10  # of the cuts
NOTICED = 100  # so many pushes at least are missing where nothing is synced
# How the places of cuts are shared out, by what was done last. Where little is pending, a cut gives one image alone.
_SHARES = {
    Kind.ACKED: 0.35,
    Kind.WRITE: 0.25,
    Kind.SYNC_BEGIN: 0.15,
    Kind.SYNC_END: 0.1,
    Kind.SIZE: 0.05,
    Kind.UNLINK: 0.05,
    Kind.CREATE: 0.05,
}
_STRICT = (Names.STRICT_DROPPED, Names.STRICT_SOME, Names.STRICT_ALL)
_ORDERED = (Names.ORDERED_DROPPED, Names.ORDERED_SOME)


@dataclass(frozen=True, slots=True)
class Image:
    """A disk as it is found, and what must be on it."""

    told: str  # where the power failed, and what is found of what was not synced
    files: dict[str, bytes | None]
    acked: frozenset[str]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was found on the images of one scenario."""

    scenario: Scenario
    images: int = 0
    looked_for: int = 0
    missing: int = 0
    lacking: int = 0  # images that lack any
    damaged: list[str] = field(default_factory=list)  # images whose database SQLite finds faults in
    started: int = 0
    set_aside: int = 0  # of these, where a spool file's torn end is kept for a person
    unfit: list[str] = field(default_factory=list)  # images with which the product does not go on as it should
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0
    control: Tally | None = None  # the same record as if nothing had ever been synced

    @property
    def noticed(self) -> bool:
        """Whether, of a control, as many are missing as must be."""
        return self.missing > NOTICED

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, or wrong, and the control shows that it would have been noticed."""
        return not (self.missing or self.damaged or self.unfit) and (self.control is None or self.control.noticed)


def made_place() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for records and images, in memory where there is such a place."""
    return tempfile.TemporaryDirectory(prefix="power-loss-", dir=_MEMORY if _MEMORY.is_dir() else None)


def run(
    scenario: Scenario, place: Path, *, cuts: int, started: int, tell: Callable[[str], None], keep: Path | None = None
) -> Tally:
    """Record a scenario, look at the images of so many cuts, and have the product go on with some of them.

    `keep`: where the first image that lacks a push is left.
    """
    data_dir, entries = record(scenario, _made(place / scenario.name))
    tell(f"{scenario.name}: {len(entries):,} entries recorded")
    tally = look(scenario, data_dir, entries, place, cuts=cuts, keep=keep)
    tally.control = look(scenario, data_dir, entries, place, cuts=max(1, cuts // _CONTROL_PART), unsynced="")
    go_on(tally, data_dir, entries, place, cuts=cuts, started=started)
    return tally


def control(scenario: Scenario, place: Path, *, cuts: int, unsynced: str) -> Tally:
    """Record a scenario, and look at the images of so many cuts as if what has such a path had never been synced."""
    data_dir, entries = record(scenario, _made(place / scenario.name))
    return look(scenario, data_dir, entries, place, cuts=cuts, unsynced=unsynced)


def look(
    scenario: Scenario,
    data_dir: Path,
    entries: Sequence[Entry],
    place: Path,
    *,
    cuts: int,
    unsynced: str | None = None,
    keep: Path | None = None,
) -> Tally:
    """Look for the acknowledged pushes on the images of so many cuts; `unsynced` as a `Disk` has it."""
    tally = Tally(scenario=scenario)
    begun = time.monotonic()
    found_at = place / "image"
    for image in _images(data_dir, entries, cuts, unsynced=unsynced):
        _lay_out(image, found_at)
        kept, faults = _find(found_at, look_whole=tally.images % _WHOLE_EVERY == 0)
        missing = image.acked - kept
        tally.images += 1
        tally.looked_for += len(image.acked)
        tally.missing += len(missing)
        if missing:
            tally.lacking += 1
            tally.examples.append(f"{image.told}: {len(missing)} of {len(image.acked)} missing")
            if keep is not None and tally.lacking == 1:
                _lay_out(image, keep)
        if faults:
            tally.damaged.append(f"{image.told}: {faults}")
    tally.seconds = time.monotonic() - begun
    return tally


def go_on(tally: Tally, data_dir: Path, entries: Sequence[Entry], place: Path, *, cuts: int, started: int) -> None:
    """Have the product go on with so many of the images that were looked at."""
    for image in _spread(_images(data_dir, entries, cuts), tally.images, started):
        tally.started += 1
        at = _made(place / f"{tally.scenario.name}-{tally.started}")
        fault = _start(image, at)
        tally.set_aside += _set_aside(at / "var")
        if fault or (fault := _verify(at)):
            tally.unfit.append(f"started {image.told}: {fault}")


def _images(data_dir: Path, entries: Sequence[Entry], cuts: int, *, unsynced: str | None = None) -> Iterator[Image]:
    """Give the images of so many cuts, in the order of the record, and no two alike of one cut."""
    chance = random.Random(_SEED)
    disk = Disk(data_dir, unsynced=unsynced)
    places = _places(entries, cuts, chance)
    for at, entry in enumerate(entries):
        disk.apply(entry)
        if at not in places:
            continue
        seen: set[int] = set()
        acked = frozenset(disk.acked)
        for content in Content:
            for names in (chance.choice(_STRICT), chance.choice(_ORDERED)):
                files = disk.image(content, names, chance)
                key = hash(tuple(files.items()))
                if key not in seen:
                    seen.add(key)
                    told = f"after entry {at} ({entry.kind.name.lower()}), files {content.value}, names {names.value}"
                    yield Image(told, files, acked)


def _places(entries: Sequence[Entry], count: int, chance: random.Random) -> set[int]:
    """Choose so many places of the record, spread over it, by what is done there."""
    places: dict[Kind, list[int]] = defaultdict(list)
    for at, entry in enumerate(entries):
        places[entry.kind].append(at)
    chosen: set[int] = set()
    for kind, share in _SHARES.items():
        wanted = min(len(places[kind]), max(1, round(count * share)))
        for part in range(wanted):  # one of each stretch of the record
            stretch = places[kind][part * len(places[kind]) // wanted : (part + 1) * len(places[kind]) // wanted]
            chosen.add(chance.choice(stretch))
    return chosen


def _spread(images: Iterator[Image], of: int, count: int) -> list[Image]:
    chosen = {(2 * part + 1) * of // (2 * count) for part in range(count)}
    return [image for number, image in enumerate(images) if number in chosen]


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _lay_out(image: Image, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    for path, content in image.files.items():
        if content is None:
            (directory / path).mkdir(mode=0o700)
        else:
            (directory / path).write_bytes(content)


def _find(directory: Path, *, look_whole: bool) -> tuple[set[str], str]:
    """Give the ids of what is kept, and what SQLite finds wrong with its file."""
    spooled = {
        str(found.id)
        for path in (directory / SPOOL_DIR).glob("*")
        for found in read_file(path)
        if isinstance(found, Push)
    }
    stored, faults = _stored(directory / DATABASE, look_whole=look_whole)
    return spooled | stored, faults


def _stored(path: Path, *, look_whole: bool) -> tuple[set[str], str]:
    if not path.exists():
        return set(), ""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA synchronous=OFF")  # of our reading
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pushes'").fetchone():
                return set(), ""
            # As the driver gives a UUID: 32 hexadecimal digits.
            ids = {row[0] for row in connection.execute("SELECT id FROM pushes NOT INDEXED")}
            whole = connection.execute("PRAGMA integrity_check(3)").fetchall() if look_whole else [("ok",)]
        except sqlite3.DatabaseError as error:
            return set(), str(error)
    stored = {f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" for text in filter(None, ids)}
    return stored, "" if whole == [("ok",)] else str(whole)


def _start(image: Image, place: Path) -> str:
    """Have the product go on with an image; give what it does not do as it should."""
    data_dir = place / "var"
    _lay_out(image, data_dir)
    with ServeProcess(place, environment=environment(data_dir)) as process:
        answer = process.push(b"mobile=15080920000&taskid=after&status=1&receivetime=2019-07-23+17%3A00%3A00")
        if answer.status != 200:
            return f"a push is answered with {answer.status}"
        await_true(lambda: not list((data_dir / SPOOL_DIR).glob("*.spool")))
    kept, faults = _find(data_dir, look_whole=True)
    if faults:
        return faults
    missing = (image.acked | {answer.headers["X-Push-Id"]}) - kept
    return f"{len(missing)} missing" if missing else ""


def _set_aside(data_dir: Path) -> bool:
    """Take away what the product keeps of spool files that it could not read to the end, and tell whether it did.

    Half of what was being written when the power failed looks like a fault of the disk. Nobody was told that it is
    kept; `verify` names it until a person has looked at it.
    """
    damaged = list((data_dir / SPOOL_DIR).glob("*.damaged"))
    for path in damaged:
        path.unlink()
    return bool(damaged)


def _verify(place: Path) -> str:
    verified = ServeProcess(place, environment=environment(place / "var")).run("verify")
    return "" if verified.returncode == 0 else verified.stdout + verified.stderr
