"""A file that is to outlive a power failure has its name made durable, in the directory that holds it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.alerting.node_state import NodeIncidents
from receiver.audit import Checkpoint, Checkpoints
from receiver.cli.events import _write as write_cursor
from receiver.cli.export import _write as write_export
from receiver.config import load_settings
from receiver.core import make_directory
from receiver.maintenance.backup import make_backup
from receiver.messages.events import Position
from tests.conftest import make_settings

if TYPE_CHECKING:
    from collections.abc import Callable


def make_secret(directory: Path) -> Path:
    load_settings(directory / "no.env")
    return directory / "push-secret"


def note_anchor(directory: Path) -> Path:
    anchors = Checkpoints(directory)
    anchors.add(Checkpoint(position=1, at=datetime(2026, 11, 23, tzinfo=UTC), hash=b"\1"))
    return anchors.path


def thin_anchors(directory: Path) -> Path:
    path = note_anchor(directory)
    Checkpoints(directory).add(Checkpoint(position=1000, at=datetime(2026, 11, 23, tzinfo=UTC), hash=b"\1"))
    return path


def keep_incidents(directory: Path) -> Path:
    NodeIncidents(directory)._write()
    return directory / "alarms.json"


def keep_cursor(directory: Path) -> Path:
    write_cursor(directory / "cursor", Position(1, 2))
    return directory / "cursor"


def export(directory: Path) -> Path:
    write_export(directory / "export.csv", iter([b"a\n"]))
    return directory / "export.csv"


@pytest.mark.parametrize("make", [make_secret, note_anchor, thin_anchors, keep_incidents, keep_cursor, export])
def test_name_of_a_file_is_durable_once_it_has_it(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    synced = note_synced(monkeypatch)
    path = make(tmp_path)
    # Each with what its directory held at that moment: the content first, then the name.
    file, directory = path.stat().st_ino, tmp_path.stat().st_ino
    assert [inode for inode, _ in synced].index(file) < last_of(synced, directory)
    assert path.name in synced[last_of(synced, directory)][1]


def test_directory_that_is_made_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = note_synced(monkeypatch)
    make_directory(tmp_path / "a" / "b")
    made = [inode for inode, _ in synced]
    assert made == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_directory(tmp_path / "a" / "b")
    assert len(synced) == 2
    make_backup(make_settings("postgresql://nowhere/x", tmp_path / "a"), tmp_path / "c" / "d", verify=None)
    assert {tmp_path.stat().st_ino, (tmp_path / "c").stat().st_ino} <= {inode for inode, _ in synced[2:]}


def note_synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """The inode of each file that is fsynced from now on, and what is in it, where it is a directory."""
    synced: list[tuple[int, list[str]]] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        really(handle)
        path = Path(f"/proc/self/fd/{handle}")
        synced.append((os.fstat(handle).st_ino, [entry.name for entry in path.iterdir()] if path.is_dir() else []))

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


def last_of(synced: list[tuple[int, list[str]]], inode: int) -> int:
    return max(place for place, (other, _) in enumerate(synced) if other == inode)
