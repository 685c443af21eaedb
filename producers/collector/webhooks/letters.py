"""Saved deliveries: the folder of those that could not be mapped, and the file in which `collect check` reads one.

A file is a delivery as it came: header lines, an empty line, the bytes of the body. Headers that carry a secret are
left out. The body is that of the provider and holds personal data, so a file is readable by its owner alone, and the
folder keeps the newest ones only.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

MOST_FILES = 1_000
ENDING = ".http"
_LEFT_OUT = frozenset({"authorization", "cookie", "proxy-authorization"})
_LONGEST_HEADERS = 64 << 10

logger = logging.getLogger("attributary.collector")


class UnmappedFolderError(ValueError):
    """The folder of unmapped deliveries cannot be used."""


class UnmappedFolder:
    """Keeps the deliveries that were signed and could not be recorded.

    Args:
        folder: where; made when it is missing.

    Raises:
        UnmappedFolderError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UnmappedFolderError(f"the folder cannot be used ({error.strerror})") from None

    async def keep(self, source: str, headers: Mapping[str, str], body: bytes) -> None:
        """Write one delivery; a disk that fails is logged, it changes no answer."""
        try:
            await asyncio.to_thread(self._write, source, headers, body)
        except OSError as error:
            logger.error("an unmapped delivery of webhook %s was not kept: %s", source, error.strerror)  # noqa: TRY400

    def _write(self, source: str, headers: Mapping[str, str], body: bytes) -> None:
        # The name is that of the content: a delivery that is repeated takes no more room.
        path = self._folder / f"{source}-{hashlib.sha256(body).hexdigest()[:24]}{ENDING}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(delivery_file(headers, body))
        kept = sorted(self._folder.glob(f"*{ENDING}"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-MOST_FILES]:
            old.unlink(missing_ok=True)


def delivery_file(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a delivery as a file."""
    given = "".join(
        f"{name}: {' '.join(text.split())}\n" for name, text in headers.items() if name.lower() not in _LEFT_OUT
    )
    return given.encode("utf-8", "replace") + b"\n" + body


def read_delivery(content: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers by name in lower case, and the body; a file that begins with JSON is all body."""
    if content.lstrip()[:1] in {b"{", b"[", b""}:
        return {}, content
    for line_end in (b"\r\n", b"\n"):
        head, found, body = content.partition(line_end * 2)
        if found and len(head) <= _LONGEST_HEADERS and (headers := _headers(head)):
            return headers, body
    return {}, content


def _headers(head: bytes) -> dict[str, str]:
    lines = [line for line in head.decode("utf-8", "replace").splitlines() if not line.startswith(("POST ", "#"))]
    pairs = [line.partition(":") for line in lines]
    if not all(colon and name.strip() and " " not in name.strip() for name, colon, _ in pairs):
        return {}
    return {name.strip().lower(): text.strip() for name, _, text in pairs}
