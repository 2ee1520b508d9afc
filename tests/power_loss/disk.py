"""A disk under a record of writes, and the forms in which it may be found after the power fails.

A file's content and a directory's entries are each what was made durable, and changes since, of which any may be there.
What a sync makes durable is what was done before it began, once it has ended.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tests.power_loss.recorder import Entry, Kind

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_SECTOR_BYTES = 512
MEMORY = "-shm"  # SQLite's index of its log: made anew by who opens the database first


class Content(enum.Enum):
    """Which changes of files since their last sync are found."""

    ALL = "all"
    DROPPED = "none"
    HALVES = "every sector or not, by chance"
    WRITES = "each write or not, by chance"
    LATER = "only the later half"
    SIZES = "sizes without data"


class Names(enum.Enum):
    """Which changes of directories since their last sync are found."""

    STRICT_DROPPED = "strict: none"
    STRICT_SOME = "strict: each or not, by chance"
    STRICT_ALL = "strict: all"
    ORDERED_DROPPED = "ordered: none"
    ORDERED_SOME = "ordered: the first ones, by chance"


@dataclass(frozen=True, slots=True)
class _Change:
    """Data at an offset of a file; without data, its new size."""

    at: int  # its place in the record
    offset: int
    data: bytes | None


@dataclass(eq=False, slots=True)
class _File:
    path: str  # its first one
    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)
    _copied: bytes | None = None

    def copy(self) -> bytes:
        """Give what is durable; the same object as long as it is, which is then hashed once."""
        if self._copied is None:
            self._copied = bytes(self.durable)
        return self._copied

    def sync(self, begun: int) -> None:
        self._copied = None
        _write(self.durable, [change for change in self.pending if change.at < begun])
        self.pending = [change for change in self.pending if change.at >= begun]


@dataclass(eq=False, slots=True)
class _Directory:
    path: str


_Node = _File | _Directory


@dataclass(frozen=True, slots=True)
class _Naming:
    """A name that comes, goes, or becomes another, of one directory."""

    at: int
    directory: str
    node: _Node
    old: str | None
    new: str | None


@dataclass(slots=True)
class _Entries:
    """The entries of all directories under one rule of what a sync makes durable."""

    durable: dict[str, _Node] = field(default_factory=dict)
    pending: list[_Naming] = field(default_factory=list)

    def sync(self, is_durable: Callable[[_Naming], bool]) -> None:
        self.durable = _named(self.durable, filter(is_durable, self.pending))
        self.pending = [naming for naming in self.pending if not is_durable(naming)]


class Disk:
    """What is done to files, up to one place of the record.

    `unsynced`: as if what has a path with this end had never been synced; with an empty one, as if nothing had. Paths
    begin with a slash here, so that `/spool` is the directory alone.
    """

    def __init__(self, root: Path, *, unsynced: str | None = None) -> None:
        self.acked: set[str] = set()  # pushes that were acknowledged by now, and may not be missing
        self._root = str(root)
        self._unsynced = unsynced
        self._nodes: dict[int, _Node] = {root.stat().st_ino: _Directory("")}
        self._live: dict[str, _Node] = {}
        self._strict = _Entries()  # POSIX: a directory's entries are durable when it was synced
        self._ordered = _Entries()  # ext4, xfs: changes of names become durable in their order, also by a file's sync
        self._syncs: dict[int, int] = {}  # turn: where it began
        self._at = 0

    def apply(self, entry: Entry) -> None:
        """Let one thing more be done."""
        self._at += 1
        match entry.kind:
            case Kind.WRITE:
                self._file(entry).pending.append(_Change(self._at, entry.number, entry.data))
            case Kind.SIZE:
                self._file(entry).pending.append(_Change(self._at, entry.number, None))
            case Kind.SYNC_BEGIN:
                self._syncs[entry.number] = self._at
            case Kind.SYNC_END:
                begun = self._syncs.pop(entry.number)
                node = self._nodes[entry.file]
                if self._unsynced is None or not f"/{node.path}".endswith(self._unsynced):
                    self._sync(node, begun)
            case Kind.ACKED:
                self.acked.add(entry.data.decode())
            case Kind.GIVEN_UP:
                self.acked.difference_update(entry.data.decode().split(","))
            case _:
                self._rename(entry)

    def image(self, content: Content, names: Names, chance: random.Random) -> dict[str, bytes | None]:
        """Give the disk in one form in which it may be found: each path's bytes; None: a directory."""
        entries = self._strict if names.name.startswith("STRICT") else self._ordered
        found = _named(entries.durable, _kept_namings(entries.pending, names, chance))
        changes = [change.at for node in found.values() if isinstance(node, _File) for change in node.pending]
        later_than = sorted(changes)[len(changes) // 2] if changes else 0
        contents: dict[int, bytes] = {}
        image: dict[str, bytes | None] = {}
        for path, node in sorted(found.items()):
            parent = _parent(path)
            if (parent and parent not in image) or path.endswith(MEMORY):
                continue  # nothing leads there
            if isinstance(node, _Directory):
                image[path] = None
                continue
            if id(node) not in contents:
                contents[id(node)] = _content(node, content, later_than, chance)
            image[path] = contents[id(node)]
        return image

    def _file(self, entry: Entry) -> _File:
        node = self._nodes[entry.file]
        assert isinstance(node, _File)
        return node

    def _sync(self, node: _Node, begun: int) -> None:
        if isinstance(node, _File):
            node.sync(begun)
            self._sync_in_order(begun, lambda naming: naming.node is node)
        else:
            self._strict.sync(lambda naming: naming.at < begun and naming.directory == node.path)
            self._sync_in_order(begun, lambda naming: naming.directory == node.path)

    def _sync_in_order(self, begun: int, concerns: Callable[[_Naming], bool]) -> None:
        concerned = [naming.at for naming in self._ordered.pending if naming.at < begun and concerns(naming)]
        last = max(concerned, default=0)
        self._ordered.sync(lambda naming: naming.at <= last)

    def _rename(self, entry: Entry) -> None:
        path = self._relative(entry.path)
        match entry.kind:
            case Kind.CREATE:
                self._name(self._made(entry.file, _File(path)), None, path)
            case Kind.MKDIR:
                self._name(self._made(entry.file, _Directory(path)), None, path)
            case Kind.UNLINK:
                self._name(self._live[path], path, None)
            case Kind.LINK:
                self._name(self._live[path], None, self._relative(entry.data.decode()))
            case Kind.RENAME:
                self._name(self._live[path], path, self._relative(entry.data.decode()))
            case _:
                raise AssertionError(entry.kind)

    def _made(self, inode: int, node: _Node) -> _Node:
        self._nodes[inode] = node  # an inode's number may come again, when nobody has the old file open any more
        return node

    def _name(self, node: _Node, old: str | None, new: str | None) -> None:
        directories = {_parent(path) for path in (old, new) if path is not None}
        if len(directories) > 1 or (isinstance(node, _Directory) and old and new):
            raise ValueError(f"not replayed: {old} becomes {new}, in another directory or as a directory")
        naming = _Naming(self._at, directories.pop(), node, old, new)
        self._live = _named(self._live, [naming])
        self._strict.pending.append(naming)
        self._ordered.pending.append(naming)

    def _relative(self, path: str) -> str:
        return str(PurePosixPath(path).relative_to(self._root))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _named(entries: dict[str, _Node], namings: Iterable[_Naming]) -> dict[str, _Node]:
    after = dict(entries)
    for naming in namings:
        if naming.old is not None and after.get(naming.old) is naming.node:
            del after[naming.old]
        if naming.new is not None:
            after[naming.new] = naming.node
    return after


def _kept_namings(pending: Sequence[_Naming], names: Names, chance: random.Random) -> Sequence[_Naming]:
    match names:
        case Names.STRICT_ALL:
            return pending
        case Names.STRICT_SOME:
            return [naming for naming in pending if chance.random() < 0.5]
        case Names.ORDERED_SOME:
            return pending[: chance.randint(0, len(pending))]
        case _:
            return []


def _content(file: _File, content: Content, later_than: int, chance: random.Random) -> bytes:
    if not file.pending or content is Content.DROPPED:
        return file.copy()
    found = bytearray(file.durable)
    match content:
        case Content.ALL:
            _write(found, file.pending)
        case Content.LATER:
            _write(found, [change for change in file.pending if change.at >= later_than])
        case Content.WRITES:
            _write(found, [change for change in file.pending if chance.random() < 0.5])
        case Content.HALVES:
            _write(found, [part for part in _sectors(file.pending) if chance.random() < 0.5])
        case Content.SIZES:
            whole = bytearray(found)
            _write(whole, file.pending)
            _resize(found, len(whole))
    return bytes(found)


def _sectors(changes: Iterable[_Change]) -> Iterator[_Change]:
    for change in changes:
        if change.data is None:
            yield change
            continue
        begin, end = change.offset, change.offset + len(change.data)
        for sector in range(begin - begin % _SECTOR_BYTES, end, _SECTOR_BYTES):
            first, last = max(begin, sector), min(end, sector + _SECTOR_BYTES)
            yield _Change(change.at, first, change.data[first - begin : last - begin])


def _write(content: bytearray, changes: Iterable[_Change]) -> None:
    for change in changes:
        if change.data is None:
            _resize(content, change.offset)
            continue
        if len(content) < change.offset:
            _resize(content, change.offset)
        content[change.offset : change.offset + len(change.data)] = change.data


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))
