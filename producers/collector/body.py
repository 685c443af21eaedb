"""The bytes of a request's body, counted while they arrive and while they are inflated.

Contract: ``read_body`` returns at most ``limit`` bytes or raises ``Refusal``: 413 for more (declared, sent or inflated;
nothing beyond the limit is ever held), 415 for an unknown encoding, 400 for a broken gzip stream or a client that left.
"""

from __future__ import annotations

import zlib

from starlette.requests import Request

from attributary.producers.collector.answers import Refusal

_GZIP = 31  # zlib's window bits for a gzip header
_STEP = 64 << 10


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, inflated when it is gzip; see the contract of the module.

    Args:
        request: the request.
        limit: most bytes, as sent and as inflated.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise Refusal(415, "Content-Encoding must be gzip or missing.", {"Accept-Encoding": "gzip"})
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise too_large(limit)
    chunks: list[bytes] = []
    total = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The client closed the connection inside the body.")
        chunk: bytes = message.get("body", b"")
        total += len(chunk)
        if total > limit:
            raise too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    sent = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return inflate(sent, limit) if encoding in {"gzip", "x-gzip"} else sent


def inflate(sent: bytes, limit: int) -> bytes:
    """Return a gzip stream's content, members joined; never holds more than ``limit`` and one step.

    Raises:
        Refusal: 413 above the limit, 400 for a stream that is broken or cut short.
    """
    found: list[bytes] = []
    total = 0
    rest = sent
    members = 0
    while rest:
        members += 1
        if members > 16:  # an empty member takes 20 bytes and yields nothing: a body of them would only cost time
            raise Refusal(400, "The gzip stream has too many members.")
        stream = zlib.decompressobj(_GZIP)
        data = rest
        while True:
            try:
                part = stream.decompress(data, _STEP)
            except zlib.error:
                raise Refusal(400, "The gzip stream is broken.") from None
            total += len(part)
            if total > limit:
                raise too_large(limit)
            found.append(part)
            if stream.eof:
                break
            data = stream.unconsumed_tail
            if not data and not part:
                raise Refusal(400, "The gzip stream is cut short.")
        rest = stream.unused_data
    if not members:
        raise Refusal(400, "The body is empty.")
    return b"".join(found)


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body or record above its limit."""
    return Refusal(413, f"The limit is {limit} bytes, before and after inflating.", more={"limit": limit})
