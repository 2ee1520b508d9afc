"""What processes do to files and acknowledge, in order, as `recorder.c` writes it down."""

from __future__ import annotations

import enum
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SOURCE = Path(__file__).with_name("recorder.c")
_ENTRY = struct.Struct("=IIQQQ")  # kind, bytes of the path, file, number, bytes of the data


class Kind(enum.Enum):
    """What an entry is about, as `recorder.c` counts them."""

    CREATE = 1
    WRITE = 2
    SIZE = 3
    SYNC_BEGIN = 4
    SYNC_END = 5
    MKDIR = 6
    RENAME = 7
    UNLINK = 8
    LINK = 9
    ACKED = 10
    GIVEN_UP = 11  # ours: from here on nobody has a claim to these pushes


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a record."""

    kind: Kind
    path: str  # of CREATE and of what changes names
    file: int  # its inode
    number: int  # WRITE: the offset; SIZE: the size; SYNC_…: the turn that its two entries share
    data: bytes  # WRITE: what is written; RENAME and LINK: the new path; ACKED: a push id; GIVEN_UP: several


class Recorder:
    """Records what processes with its environment do below a directory. Needs `cc`."""

    def __init__(self, directory: Path, *, root: Path) -> None:
        self.root = root.resolve()
        self._record = directory / "record"
        self._library = directory / "recorder.so"
        compiler = shutil.which("cc")
        if compiler is None:
            raise LookupError("no C compiler to build the recorder with")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with."""
        return {"LD_PRELOAD": str(self._library), "RECORD_FILE": str(self._record), "RECORD_ROOT": str(self.root)}

    def give_up(self, push_ids: Sequence[str]) -> None:
        """Note that from now on these pushes may be gone: somebody asks for it."""
        data = ",".join(push_ids).encode()
        with self._record.open("ab", buffering=0) as file:  # one write is one entry, whoever else appends
            file.write(_ENTRY.pack(Kind.GIVEN_UP.value, 0, 0, 0, len(data)) + data)

    def entries(self) -> Iterator[Entry]:
        """Give what was recorded so far."""
        with self._record.open("rb") as file:
            while head := file.read(_ENTRY.size):
                kind, path_bytes, inode, number, data_bytes = _ENTRY.unpack(head)
                path = os.fsdecode(file.read(path_bytes))
                yield Entry(Kind(kind), path, inode, number, file.read(data_bytes))
