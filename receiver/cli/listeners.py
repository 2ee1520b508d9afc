"""Find the process that listens on an address, by /proc: root sees all processes, other users only their own."""

from __future__ import annotations

import sys
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_LISTENS = "0A"


def find_listener(address: str, port: int) -> tuple[int, str] | None:
    """Return the id and name of the process that listens on an address; None if it is not visible."""
    sockets = {f"socket:[{inode}]" for inode in _find_sockets(ip_address(address), port)}
    holders = [int(path.name) for path in _PROC.glob("[0-9]*") if sockets and not sockets.isdisjoint(_links(path))]
    if not holders:
        return None
    first = min(holders)  # workers inherit it from the main process
    return first, _name(_PROC / str(first))


def _find_sockets(address: IPv4Address | IPv6Address, port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        lines: list[str] = []
        with suppress(OSError):
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        for line in lines:
            fields = line.split()
            local_text, _, local_port = fields[1].partition(":")
            if fields[3] != _LISTENS or int(local_port, 16) != port:
                continue
            local = _parse_address(local_text)
            if local == address or local.is_unspecified or address.is_unspecified:
                yield fields[9]


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address of /proc/net/tcp: hexadecimal words of four bytes, in this machine's byte order."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _links(process: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's, or gone
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())


def _name(process: Path) -> str:
    """Return a program's name; ours as `receiver`, whichever Python runs it."""
    try:
        arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        ours = any(Path(argument).name == "receiver" for argument in arguments[:4])
        return "receiver" if ours else (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "a program"
