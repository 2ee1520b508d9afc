"""The spool's files: what is acknowledged is in them, whatever becomes of the process or of single bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.core import UNREAD, Disk, Push, SpoolUnavailable
from receiver.intake.spool import Spool, SpoolState, seconds_left, spool_state
from receiver.intake.spool_records import Damage, SpooledSends, count_frames, drop_stale_counts, read_file
from tests.harness.factories import NOON, make_push, make_send
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 1 << 30
DISK = Disk(free_bytes=MANY, total_bytes=2 * MANY)


def pushes_in(path: Path) -> list[Push]:
    return [found for found in read_file(path) if isinstance(found, Push)]


def as_spooled(push: Push) -> tuple[object, ...]:
    """What a spooled push must have kept: all but its reading, which is made again."""
    return tuple(getattr(push, name) for name in Push.__slots__ if name not in ("reading", "flags"))


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    every_byte = make_push(body=bytes(range(256)))
    sends = SpooledSends(
        sends=(
            make_send(reference="r", sent_at=NOON),
            make_send(task_id=None, error_message="一分钟一条", sent_at=NOON),
        ),
        recorded_at=datetime.now(UTC),
    )
    spool.append([every_byte, sends])
    spool.append([make_push()])
    (path,) = spool.list_waiting()
    first, second, third = read_file(path)
    assert isinstance(first, Push)
    assert isinstance(third, Push)
    assert as_spooled(first) == as_spooled(every_byte)
    assert first.reading is UNREAD
    assert second == sends


def test_spool_is_for_its_owner_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    spool.append([make_push()])
    (path,) = (tmp_path / "spool").iterdir()
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_full_spool_refuses_and_keeps_none_of_the_batch(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=2000)
    spool.append([make_push()])
    before = spool_state(spool.directory)
    with pytest.raises(SpoolUnavailable, match="RECEIVER_SPOOL_MAX_BYTES"):
        spool.append([make_push() for _ in range(10)])
    assert spool_state(spool.directory) == before
    spool.append([make_push()])
    assert spool_state(spool.directory).records == 2


def test_limit_counts_what_other_processes_left(tmp_path: Path) -> None:
    other = Spool(tmp_path / "spool", max_bytes=MANY)
    other.append([make_push() for _ in range(20)])
    other.close()
    with pytest.raises(SpoolUnavailable):
        Spool(tmp_path / "spool", max_bytes=2000).append([make_push()])


def test_write_that_fails_half_way_leaves_no_half_record(tmp_path: Path) -> None:
    """The kernel's own limit on file sizes cuts the write short, as a full disk does."""
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    spool.append([make_push()])
    (path,) = spool.directory.iterdir()
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        with pytest.raises(SpoolUnavailable):
            spool.append([make_push(body=b"x" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    spool.append([make_push()])
    assert [len(pushes_in(waiting)) for waiting in spool.list_waiting()] == [1, 1]


def without_locks(*_: object) -> None:
    """What a network file system without a lock service answers."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_place_without_locks_takes_nothing_and_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", without_locks)
        with pytest.raises(SpoolUnavailable):
            spool.append([make_push()])
        with pytest.raises(SpoolUnavailable):
            spool.check()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    spool.check()
    spool.append([make_push()])
    assert [len(pushes_in(path)) for path in spool.list_waiting()] == [1]


def test_file_that_cannot_be_locked_keeps_no_other_from_being_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Spool(tmp_path / "spool", max_bytes=MANY)
    other.append([make_push()])
    other.close()
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    spool.append([make_push()])
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", without_locks)
        assert len(spool.list_waiting()) == 1
    assert len(spool.list_waiting()) == 2


def test_file_in_a_moved_place_takes_no_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "data" / "spool", max_bytes=MANY)
    spool.directory.parent.mkdir()
    spool.append([make_push()])
    spool.directory.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(SpoolUnavailable):
        spool.append([make_push()])
    assert spool_state(tmp_path / "elsewhere" / "spool").records == 1
    spool.directory.parent.mkdir()
    spool.append([make_push()])  # there is a place again
    assert spool_state(spool.directory).records == 1


@pytest.mark.parametrize("remove", ["file", "directory"])
def test_what_was_in_a_file_that_was_removed_goes_with_what_comes(remove: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    spool.append([make_push()])
    (path,) = spool.directory.iterdir()
    path.unlink()
    if remove == "directory":
        spool.directory.rmdir()
    spool.append([make_push()])
    assert spool_state(spool.directory).records == 2  # with what was acknowledged before
    assert sum(len(pushes_in(waiting)) for waiting in spool.list_waiting()) == 2


def test_file_of_a_living_process_is_left_to_it_and_that_of_a_dead_one_taken_over(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from receiver.intake.spool import Spool
from tests.harness.factories import make_push
spool = Spool(pathlib.Path(sys.argv[1]), max_bytes=1 << 30)
spool.append([make_push()])
print("written", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "spool")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        spool = Spool(tmp_path / "spool", max_bytes=MANY)
        assert spool.list_waiting() == []
        process.kill()
        process.wait()
    (path,) = spool.list_waiting()
    assert len(pushes_in(path)) == 1
    spool.remove(path, damaged=False)
    assert spool.empty


def test_two_processes_never_take_over_the_same_file(tmp_path: Path) -> None:
    writer = Spool(tmp_path / "spool", max_bytes=MANY)
    writer.append([make_push()])
    writer.close()
    one, other = (Spool(tmp_path / "spool", max_bytes=MANY) for _ in range(2))
    assert len(one.list_waiting()) == 1
    assert other.list_waiting() == []


def written(directory: Path, count: int) -> tuple[Path, list[Push], list[int]]:
    """A file of single records, and where each ends."""
    spool = Spool(directory, max_bytes=MANY)
    pushes, ends = [make_push(task_id=str(number)) for number in range(count)], []
    for push in pushes:
        spool.append([push])
        (path,) = directory.glob("*.spool")
        ends.append(path.stat().st_size)
    spool.close()
    return path, pushes, ends


def test_file_cut_at_any_offset_keeps_every_whole_record(tmp_path: Path) -> None:
    path, pushes, ends = written(tmp_path / "spool", 4)
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = [push for push, end in zip(pushes, ends, strict=True) if end <= cut]
        found = list(read_file(path))
        assert [as_spooled(push) for push in found if isinstance(push, Push)] == [as_spooled(push) for push in whole]
        assert any(isinstance(part, Damage) for part in found) == (cut not in (0, *ends))


def test_flipped_bit_at_any_offset_costs_one_record_and_is_seen(tmp_path: Path) -> None:
    path, pushes, ends = written(tmp_path / "spool", 3)
    data = path.read_bytes()
    for offset in range(len(data)):
        for bit in (0, 7):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            path.write_bytes(flipped)
            hit = next(number for number, end in enumerate(ends) if offset < end)
            spared = [as_spooled(push) for number, push in enumerate(pushes) if number != hit]
            found = list(read_file(path))
            assert [as_spooled(push) for push in found if isinstance(push, Push)] == spared, offset
            assert any(isinstance(part, Damage) for part in found), offset


def test_state_counts_records_bytes_and_age(tmp_path: Path) -> None:
    assert spool_state(tmp_path / "spool").records == 0
    path, _, ends = written(tmp_path / "spool", 5)
    state = spool_state(tmp_path / "spool")
    assert (state.records, state.bytes, state.damaged) == (5, ends[-1], ())
    assert state.oldest_at is not None
    assert abs(state.oldest_at - path.stat().st_mtime) < 5


@pytest.mark.parametrize(
    ("waits", "age", "max_bytes", "free", "left"),
    [
        (1_000, 100.0, 10_000, MANY, 900.0),  # ten bytes a second, and 9,000 more
        (1_000, 100.0, 10_000, 500, 50.0),  # the disk is full before the spool is
        (1_000, 100.0, 900, MANY, 0.0),
        (1_000, 29.9, 10_000, MANY, None),  # too early to know
        (0, 100.0, 10_000, MANY, None),
    ],
)
def test_time_that_is_left_is_that_of_the_present_rate(
    waits: int, age: float, max_bytes: int, free: int, left: float | None
) -> None:
    state = SpoolState(records=1, bytes=waits, oldest_at=1e9 - age, damaged=())
    disk = replace(DISK, free_bytes=free)
    assert seconds_left(state, max_bytes=max_bytes, disk=disk, now=1e9) == left


def test_time_that_is_left_needs_no_size_of_the_disk() -> None:
    state = SpoolState(records=1, bytes=1_000, oldest_at=0.0, damaged=())
    assert seconds_left(state, max_bytes=2_000, disk=Disk(free_bytes=0, total_bytes=0), now=100.0) == 100.0
    assert seconds_left(replace(state, oldest_at=None), max_bytes=2_000, disk=DISK, now=100.0) is None


def test_commands_say_how_long_there_is_room(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path, environment={"RECEIVER_SPOOL_MAX_BYTES": str(MANY)})
    spool = Spool(tmp_path / "spool", max_bytes=MANY)
    spool.append([make_push()])
    assert "present rate" not in process.run("spool", "status").stdout  # too early to know
    (path,) = (tmp_path / "spool").iterdir()
    begun_ns, _, rest = path.name.partition("-")
    path.rename(path.with_name(f"{int(begun_ns) - 3600 * 10**9}-{rest}"))
    says = re.compile(r"; room for \d+ more hours at the current rate$", re.MULTILINE)
    for command in (("spool", "status"), ("status",)):
        assert says.search(process.run(*command).stdout), command


def test_records_are_counted_by_other_threads_while_old_counts_are_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MANY)
    spool.append([make_push()])
    (file,) = tmp_path.glob("*.spool")
    gone = tmp_path / "gone.spool"
    gone.touch()
    count_frames(gone)

    class Files(list[Path]):
        """Another thread counts a file at whatever moment these are looked at."""

        def __iter__(self) -> Iterator[Path]:
            count_frames(file)
            return super().__iter__()

        def __contains__(self, path: object) -> bool:
            count_frames(file)
            return super().__contains__(path)

    drop_stale_counts(Files([file]))
    assert count_frames(file) == 1
