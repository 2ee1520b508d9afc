"""The records of spool files and their binary format.

A file is a sequence of frames: a mark, the length and CRC-32 of the payload, then one record as ASCII JSON, encrypted
if keys are set. Unreadable bytes do not affect other records: reading continues at the next mark.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from receiver.core import ARRIVAL_FLAGS, UNREAD, Kind, MessageStatus, Push, SendAttempt, SendResult, SentMessage
from receiver.db.encryption import DecryptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.db.encryption.ciphers import Keyring


_MARK = b"\xf5RSP"  # its first byte occurs in no record
_HEADER = struct.Struct(">4sII")  # mark, length in bytes, CRC-32
_ENCRYPTED = b"sealed:"  # prefix of an encrypted record; JSON never starts so
_PLACE = b"spool"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledSends:
    """Records of sends that came in one request."""

    sends: tuple[SentMessage, ...]
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledAttempt:
    """A send attempt: its start, or (with `result`) its result."""

    attempt: SendAttempt
    result: SendResult | None
    recorded_at: datetime


Record = Push | SpooledSends | SpooledAttempt


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are no record: left by a process that died, or by a disk fault."""

    offset: int
    bytes: int


def read_file(path: Path, ring: Keyring | None = None) -> Iterator[Record | Damage]:
    """Yield the records of a file in order, and the unreadable parts between them.

    Raises DecryptionError if the key of an encrypted record is missing; that is not damage.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return  # saved and removed meanwhile
    offset = 0
    while offset < len(data):
        record, end = _read_frame(data, offset, ring)
        if record is not None:
            yield record
        else:
            next_mark = data.find(_MARK, offset + 1)
            end = next_mark if next_mark >= 0 else len(data)
            yield Damage(offset, end - offset)
        offset = end


def _read_frame(data: bytes, offset: int, ring: Keyring | None) -> tuple[Record | None, int]:
    begin = offset + _HEADER.size
    if begin > len(data):
        return None, offset
    mark, length, checksum = _HEADER.unpack_from(data, offset)
    end = begin + length
    if mark != _MARK or end > len(data) or zlib.crc32(data[begin:end]) != checksum:
        return None, offset
    try:
        return _decode(json.loads(_opened(data[begin:end], ring))), end
    except (ValueError, KeyError, TypeError):
        return None, offset


def _opened(payload: bytes, ring: Keyring | None) -> bytes:
    if not payload.startswith(_ENCRYPTED):
        return payload
    if ring is None:
        raise DecryptionError("a spool file is encrypted; set RECEIVER_ENCRYPTION_KEYS to the keys it was written with")
    return ring.decrypt(b64decode(payload.removeprefix(_ENCRYPTED)), _PLACE)


def frame(record: Record, ring: Keyring | None) -> bytes:
    """Return the bytes of a record in a file."""
    payload = json.dumps(_encode(record)).encode("ascii")
    if ring is not None:  # base64, so that no record contains the first byte of a mark
        payload = _ENCRYPTED + b64encode(ring.encrypt(payload, _PLACE))
    return _HEADER.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def _encode(record: Record) -> dict[str, Any]:
    if isinstance(record, Push):
        return {
            "id": str(record.id),
            "account": record.account,
            "endpoint": record.endpoint,
            "method": record.method,
            "query": record.query.decode("latin-1"),
            "body": record.body.decode("latin-1"),
            "content_type": record.content_type,
            "remote_addr": record.remote_addr,
            "received_at": record.received_at.isoformat(),
            **dict.fromkeys(sorted(ARRIVAL_FLAGS.intersection(record.flags)), True),
        }
    at = {"recorded_at": record.recorded_at.isoformat()}
    if isinstance(record, SpooledSends):
        return at | {"sends": [_fields(send) for send in record.sends]}
    return at | {"attempt": _fields(record.attempt), "result": record.result and _fields(record.result)}


def _fields(value: SentMessage | SendAttempt | SendResult) -> dict[str, Any]:
    given = {name: getattr(value, name) for name in value.__slots__}
    return {name: _plain(part) for name, part in given.items() if part is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _decode(fields: dict[str, Any]) -> Record:
    if "sends" in fields:
        return SpooledSends(
            sends=tuple(_decode_send(send) for send in fields["sends"]),
            recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        )
    if "attempt" in fields:
        return SpooledAttempt(
            attempt=_decode_attempt(fields["attempt"]),
            result=_decode_result(fields["result"]) if fields["result"] else None,
            recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        )
    endpoint = fields["endpoint"]
    return Push(
        id=UUID(fields["id"]),
        account=fields["account"],
        endpoint=None if endpoint is None else Kind(endpoint),
        method=fields["method"],
        query=fields["query"].encode("latin-1"),
        body=fields["body"].encode("latin-1"),
        content_type=fields["content_type"],
        remote_addr=fields["remote_addr"],
        received_at=datetime.fromisoformat(fields["received_at"]),
        reading=UNREAD,
        flags=tuple(flag for flag in sorted(ARRIVAL_FLAGS) if fields.get(flag)),
    )


def _decode_send(fields: dict[str, Any]) -> SentMessage:
    values = {"task_id": None, **fields}
    if "sent_at" in values:
        values["sent_at"] = datetime.fromisoformat(values["sent_at"])
    return SentMessage(**values)


def _decode_attempt(fields: dict[str, Any]) -> SendAttempt:
    values = {"template_id": None, "reference": None, **fields}
    values |= {"id": UUID(fields["id"]), "sent_at": datetime.fromisoformat(fields["sent_at"])}
    return SendAttempt(**values)


def _decode_result(fields: dict[str, Any]) -> SendResult:
    state = fields.get("state")
    values = fields | {
        "state": None if state is None else MessageStatus(state),
        "answered_at": datetime.fromisoformat(fields["answered_at"]),
    }
    return SendResult(**values)


# --- Without decoding ---------------------------------------------------------------------------


def without_torn_end(data: bytes) -> bytes:
    """Return the data without an incomplete last record; other damage stays, for the operator to see."""
    offset = 0
    while offset < len(data):
        if (end := _frame_end(data, offset)) is not None:
            offset = end
            continue
        next_mark = data.find(_MARK, offset + 1)
        if next_mark < 0:
            torn = data[offset : offset + len(_MARK)] == _MARK[: len(data) - offset]
            return data[:offset] if torn else data
        offset = next_mark
    return data


def _frame_end(data: bytes, offset: int) -> int | None:
    begin = offset + _HEADER.size
    if begin > len(data):
        return None
    mark, length, _ = _HEADER.unpack_from(data, offset)
    return begin + length if mark == _MARK and begin + length <= len(data) else None


_counted: dict[Path, tuple[int, int]] = {}  # offset counted so far, and the count: files only grow


def count_frames(path: Path) -> int:
    """Return the number of complete records in a file, without decoding them."""
    offset, count = _counted.get(path, (0, 0))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while offset + _HEADER.size <= size:
                mark, length, _ = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, offset))
                if mark != _MARK or offset + _HEADER.size + length > size:
                    break  # damaged from here, or still being written
                offset += _HEADER.size + length
                count += 1
    except (OSError, struct.error):
        return count
    _counted[path] = (offset, count)
    return count


def drop_stale_counts(files: Sequence[Path]) -> None:
    """Drop the cached counts of files that no longer exist."""
    for path in set(_counted).difference(files):  # copied in one step: other threads count meanwhile
        _counted.pop(path, None)
