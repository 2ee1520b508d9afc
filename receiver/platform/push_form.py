"""The fields of a push, from its bytes: their form and their encoding.

Three forms are read, whatever the Content-Type says: urlencoded, as on the platform's page, and the two common mistakes
of senders, multipart/form-data (RFC 7578) and one flat JSON object. Characters: as declared, else UTF-8, else GB18030.
A broken character is replaced, and the text around it stays.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from receiver.core import PushFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
_BROKEN_BYTES = _BROKEN.encode()
_BYTE_ORDER_MARK = codecs.BOM_UTF8

# Charsets that a Content-Type may declare, and their codecs. Others (ISO-8859-1, US-ASCII) are defaults of libraries,
# and say nothing about the text.
_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "unicode-1-1-utf-8"), "utf-8"),
    **dict.fromkeys(("gb18030", "gbk", "x-gbk", "gb2312", "gb_2312-80", "euc-cn", "cp936", "ms936"), "gb18030"),
    **dict.fromkeys(("windows-936", "x-mswin-936"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs", "x-x-big5", "cp950", "ms950", "x-windows-950"), "big5hkscs"),
    **{name: name for name in ("utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be")},
}
_WIDE = ("utf-16", "utf-32")  # in these the signs of a form are wide too
_CHARSET = re.compile(r"\bcharset\s*=\s*[\"']?([\w.:-]+)", re.ASCII | re.IGNORECASE)

_DISPOSITION = re.compile(rb"^content-disposition[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_PART_TYPE = re.compile(rb"^content-type[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_PART_NAME = re.compile(rb";[ \t]*name[ \t]*=[ \t]*(?:\"([^\"\r\n]*)\"|([^;\s\"]+))", re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")

# UTF-8 of UTF-16's halves (CESU-8), as Java's modified UTF-8 and some databases write what is beyond 16 bits.
_SPLIT_PAIR = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_HALF = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_CUT_BEGIN = re.compile(rb"\A[\x80-\xbf]{1,3}")
_MANY_BYTES = "\u0800"  # from here on three bytes or more, which chance does not bring together in GB18030


Field = tuple[str, str, bool]  # name as it is written, value, whether a character of them is broken
Piece = tuple[bytes, bytes]  # name and value


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields in their order, and the flags of their corrections."""

    found: Sequence[Field]
    flags: tuple[str, ...] = ()


class _Text(NamedTuple):
    text: str
    damaged: bool = False
    gb18030: bool = False


def read_fields(body: bytes, query: bytes, content_type: str | None) -> Fields:
    """Return the fields of the body, or of the query if the body has none. Never raises."""
    charset = _declared(content_type) if content_type else None
    if charset and charset.startswith(_WIDE):
        body, charset = _narrowed(body, charset), None
    return _read_form(body, charset) or _read_form(query, charset) or Fields(())


def _read_form(data: bytes, charset: str | None) -> Fields | None:
    """Return the fields of one form. None: it has none."""
    data = data.removeprefix(_BYTE_ORDER_MARK)
    begin = data[:64].lstrip()
    if begin.startswith(b"{") and (fields := _read_json(data, charset)) is not None:
        return fields if fields.found else None
    if begin.startswith(b"--") and (parts := _read_multipart(data)).pieces:
        return _decoded(parts.pieces, charset or parts.charset)
    pieces = _read_urlencoded(data)
    return _decoded(pieces, charset) if pieces else None


@lru_cache(maxsize=256)
def _declared(content_type: str) -> str | None:
    match = _CHARSET.search(content_type)
    return _CHARSETS.get(match[1].lower()) if match else None


def _narrowed(body: bytes, charset: str) -> bytes:
    """Return a form in UTF-16 or UTF-32 as UTF-8; any other unchanged."""
    for codec in (charset, f"{charset}be") if charset in _WIDE else (charset,):
        try:
            text = body.decode(codec)
        except UnicodeDecodeError:
            continue
        if "=" in text or "{" in text:
            return text.removeprefix("\ufeff").encode()
    return body


# --- Forms ------------------------------------------------------------------------------------------------


def _read_urlencoded(data: bytes) -> list[Piece]:
    pieces = []
    for piece in data.split(b"&"):
        if piece.strip(b"\r\n"):
            name, _, value = piece.partition(b"=")
            pieces.append((unquote_to_bytes(name.replace(b"+", b" ")), unquote_to_bytes(value.replace(b"+", b" "))))
    return pieces


class _Parts(NamedTuple):
    pieces: list[Piece]
    charset: str | None  # that the first of them declares


def _read_multipart(data: bytes) -> _Parts:
    """Return the parts that have a name. By the boundary that the body begins with: another may be declared."""
    data = data.lstrip()
    boundary = data.partition(b"\n")[0].rstrip()
    pieces, charset = [], None
    for part in re.split(rb"(?:^|\r?\n)%b(?:--)?[ \t]*(?=\r?\n|$)" % re.escape(boundary), data)[1:]:
        head, *values = _BLANK_LINE.split(part, maxsplit=1)
        disposition = _DISPOSITION.search(head)
        named = _PART_NAME.search(disposition[1]) if disposition else None
        if named is None or not values:
            continue
        typed = _PART_TYPE.search(head)
        charset = charset or (_declared(typed[1].decode("latin-1")) if typed else None)
        pieces.append((named[1] if named[1] is not None else named[2], values[0]))
    return _Parts(pieces, charset)


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON as it was written: a name may stand in it twice."""


def _read_json(data: bytes, charset: str | None) -> Fields | None:
    """Return the fields of a flat object without nulls, numbers as written; None: it is no flat object."""
    decoded = _decoded([(b"", data)], charset)
    ((_, text, broken),) = decoded.found
    try:
        read = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
            strict=False,
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, _Pairs) or any(isinstance(value, list) for _, value in read):
        return None
    found = []
    for name, value in read:
        if value is not None:
            written = str(value).lower() if isinstance(value, bool) else value
            whole = _without_halves(written)
            found.append((_without_halves(name), whole, whole != written or (broken and _BROKEN in whole)))
    if PushFlag.DAMAGED.value not in decoded.flags and any(damaged for _, _, damaged in found):
        return Fields(found, (*decoded.flags, PushFlag.DAMAGED.value))
    return Fields(found, decoded.flags)


def _without_halves(text: str) -> str:
    """Return a text with escaped UTF-16 surrogate pairs joined."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- Characters -------------------------------------------------------------------------------------------


def _decoded(pieces: Sequence[Piece], charset: str | None) -> Fields:
    """Return the pieces as text: all in one encoding if one fits them all, else each in its own."""
    for encoding in (charset, "utf-8") if charset else ("utf-8",):
        try:
            return Fields([(name.decode(encoding), value.decode(encoding), False) for name, value in pieces])
        except UnicodeDecodeError:
            continue
    ways: list[Callable[[bytes], _Text | None]] = [_as_damaged_utf8, _as_gb18030]
    if charset and charset != "utf-8":
        ways.insert(0, partial(_as_cut, encoding=charset))
    parts = [part for piece in pieces for part in piece]
    for way in ways:
        texts = [text for part in parts if (text := way(part)) is not None]
        if len(texts) == len(parts):
            break
    else:
        texts = [_as_it_may_be(part) for part in parts]
    found = [
        (name.text, value.text, name.damaged or value.damaged)
        for name, value in zip(texts[::2], texts[1::2], strict=True)
    ]
    gb18030 = (PushFlag.GB18030.value,) if any(text.gb18030 for text in texts) else ()
    damaged = (PushFlag.DAMAGED.value,) if any(text.damaged for text in texts) else ()
    return Fields(found, (*gb18030, *damaged))


def _as_cut(data: bytes, encoding: str) -> _Text | None:
    """Return text of which at most the last character is cut. None: more is wrong."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(data)
    except UnicodeDecodeError:
        return None
    cut = bool(decoder.getstate()[0])
    return _Text(text + _BROKEN if cut else text, damaged=cut)


def _as_damaged_utf8(data: bytes) -> _Text | None:
    """Return text that is UTF-8 except for a cut end, surrogate halves, or few bytes among whole characters."""
    mended = _HALF.sub(_BROKEN_BYTES, _SPLIT_PAIR.sub(_joined, data))
    cut = _as_cut(mended, "utf-8")
    if cut is not None:
        return _Text(cut.text, damaged=cut.damaged or mended != data)
    text, broken, whole = _lossy(_CUT_BEGIN.sub(_BROKEN_BYTES, mended), "utf-8")
    return _Text(text, damaged=True) if whole >= max(2, 2 * broken) else None


def _joined(pair: re.Match[bytes]) -> bytes:
    return pair[0].decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16").encode()


def _as_gb18030(data: bytes) -> _Text | None:
    try:
        return _Text(data.decode("gb18030"), gb18030=not data.isascii())
    except UnicodeDecodeError:
        return None


def _as_it_may_be(data: bytes) -> _Text:
    """Return the text of a single field, if the fields share no encoding or it has none."""
    try:
        return _Text(data.decode())
    except UnicodeDecodeError:
        pass
    if (text := _as_damaged_utf8(data) or _as_gb18030(data)) is not None:
        return text
    utf8, broken, whole = _lossy(data, "utf-8")
    if whole >= broken:
        return _Text(utf8, damaged=True)
    if (cut := _as_cut(data, "gb18030")) is not None:
        return cut._replace(gb18030=not cut.text.rstrip(_BROKEN).isascii())
    gb18030, broken_of_it, _ = _lossy(data, "gb18030")
    if broken_of_it < broken:
        return _Text(gb18030, damaged=True, gb18030=True)
    return _Text(utf8, damaged=True)


def _lossy(data: bytes, encoding: str) -> tuple[str, int, int]:
    """Return the readable text, its number of broken characters, and of whole ones of three bytes."""
    text = data.decode(encoding, "replace")
    broken = text.count(_BROKEN) - data.count(_BROKEN_BYTES)
    return text, broken, sum(character >= _MANY_BYTES for character in text) - text.count(_BROKEN)
