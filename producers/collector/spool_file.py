r"""The spool's files: append-only segments of sealed messages.

Layout of a segment: the magic bytes ``ATBSPL1\n``, then frames. A frame is ``F5 A7 B0 0C``, the length of the payload
and its CRC-32 (both 4 bytes, big-endian), and the payload: msgpack of (time written, event id, topic, key, value,
headers).

Contract: ``read_segment`` yields what can be proved to be whole. A tail that is cut short, as a crash leaves it, ends
the reading; a frame that was changed on disk is skipped, the next one is found by its mark and checksum, and the damage
is counted. The mark is no UTF-8, so no text of a record can look like a frame. Personal data never stands in a segment
in plain form: messages are sealed, which hashes it first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from attributary.producers.transport import Message

MAGIC = b"ATBSPL1\n"
MARK = b"\xf5\xa7\xb0\x0c"
_HEAD = struct.Struct(">4sII")
MAX_PAYLOAD = 4 << 20
SUFFIX = ".spool"

_encode = msgspec.msgpack.Encoder().encode


class Spooled(NamedTuple):
    """One message of the spool, and when it was written (seconds since 1970)."""

    written_at: float
    event_id: str
    message: Message


_decode = msgspec.msgpack.Decoder(tuple[float, str, str, bytes, bytes, list[tuple[str, Any]]]).decode


def frame(event_id: str, message: Message, written_at: float) -> bytes:
    """Return the frame of a message."""
    payload = _encode((written_at, event_id, *message))
    return _HEAD.pack(MARK, len(payload), zlib.crc32(payload)) + payload


@dataclass(slots=True)
class Damage:
    """What a reading found: frames that were changed, and bytes of a torn tail."""

    corrupt: int = 0
    torn_bytes: int = 0


def read_segment(path: Path, damage: Damage) -> Iterator[Spooled]:
    """Yield the messages of a segment, oldest first; see the contract of the module.

    Args:
        path: the file.
        damage: is filled in while reading.

    Raises:
        OSError: the file cannot be read.
    """
    data = path.read_bytes()  # a segment is small by its limit
    position = len(MAGIC)
    if data[:position] != MAGIC:
        position = 0  # the frames behind it are found by their marks
    while position < len(data):
        payload = _payload_at(data, position)
        if payload is not None and (found := _spooled(payload)) is not None:
            yield found
            position += _HEAD.size + len(payload)
            continue
        following = _next_whole(data, position + 1)
        if following is None:
            if _is_complete(data, position):
                damage.corrupt += 1
            else:
                damage.torn_bytes += len(data) - position
            return
        damage.corrupt += 1
        position = following


def _payload_at(data: bytes, position: int) -> bytes | None:
    if position + _HEAD.size > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    if mark != MARK or length > MAX_PAYLOAD or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload) == checksum else None


def _is_complete(data: bytes, position: int) -> bool:
    """Tell whether the last frame has all its bytes, so that it was changed and not cut short."""
    if position + _HEAD.size > len(data):
        return False
    mark, length, _ = _HEAD.unpack_from(data, position)
    return bool(mark == MARK and position + _HEAD.size + length <= len(data))


def _next_whole(data: bytes, position: int) -> int | None:
    while (position := data.find(MARK, position)) != -1:
        if _payload_at(data, position) is not None:
            return position
        position += 1
    return None


def _spooled(payload: bytes) -> Spooled | None:
    try:
        written_at, event_id, topic, key, value, headers = _decode(payload)
    except (msgspec.DecodeError, ValueError):
        return None
    return Spooled(written_at, event_id, Message(topic, key, value, [(name, text) for name, text in headers]))
