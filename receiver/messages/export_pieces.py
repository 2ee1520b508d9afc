"""Pieces of a file as a file object, to read from and to write to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class PieceReader(io.RawIOBase):
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(next(self._pieces, b""))

    @property
    def empty(self) -> bool:
        """Return whether it has no rows; call before reading."""
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        return not self._rest

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or some of it."""
        if self.empty:
            return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class PieceWriter(io.RawIOBase):
    """A file that is written to, and taken from piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0
        self.held = 0  # bytes that were not taken yet

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return how much was written."""
        return self._written

    def write(self, data: Any) -> int:
        """Accept a piece."""
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        self.held += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._pieces)
        self._pieces, self.held = [], 0
        return taken
