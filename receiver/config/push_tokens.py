"""The file that holds the push secrets: which one it is, what it says, and how it is replaced."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.config import parsers as to
from receiver.config.loading import find_source
from receiver.config.settings import PUSH_SECRET_FILE, SETTINGS
from receiver.core import ReceiverError, explain, replacing_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from receiver.config.settings import Settings

Tokens = tuple[tuple[str, str], ...]  # account, secret; the first of an account is the active one


@dataclass(frozen=True, slots=True)
class TokensFile:
    """A file of push secrets."""

    path: Path

    def read(self) -> Tokens:
        """Return the secrets. Raises ReceiverError."""
        try:
            return to.tokens(self.path.read_text(encoding="utf-8-sig").strip())
        except (OSError, ValueError) as error:
            raise ReceiverError(f"cannot read the push secrets of {self.path}: {_reason(error)}") from None

    @contextmanager
    def replacing(self, before: Tokens, after: Sequence[tuple[str, str]]) -> Iterator[None]:
        """Replace the secrets at the end of the block, whole or not at all; owner and mode stay.

        Raises ReceiverError if the file cannot be written, or no longer says `before`.
        """
        try:
            path = self.path.resolve(strict=True)
            state = path.stat()
            with replacing_file(path) as file:
                os.fchown(file.fileno(), state.st_uid, state.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(state.st_mode))
                file.write(f"{tokens_text(after)}\n".encode())
                yield
                if self.read() != before:
                    raise ReceiverError(f"{self.path} has changed meanwhile; run this again")
        except OSError as error:
            raise ReceiverError(f"{self.path} cannot be replaced: {_reason(error)}") from None


def find_tokens_file(settings: Settings, env_file: Path = Path(".env")) -> TokensFile | None:
    """Return the file that holds the push secrets; None: the environment or `.env` holds them itself.

    Raises SettingsError if `.env` cannot be read.
    """
    source = find_source(SETTINGS["push_tokens"].name, env_file)
    if isinstance(source, Path):
        return TokensFile(source)
    return None if source else TokensFile(settings.data_dir / PUSH_SECRET_FILE)


def tokens_text(tokens: Sequence[tuple[str, str]]) -> str:
    """Return the text of the setting."""
    return ",".join(f"{account}:{secret}" for account, secret in tokens)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError) and error.filename is not None:
        return explain(error)
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
