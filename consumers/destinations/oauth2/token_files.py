"""Refresh tokens that a platform has replaced, in files: they outlive the process.

Contract: `read` gives the newest refresh token of a grant, `write` replaces it. Each grant has a file, named by its
key, that only its owner can read. Invariants: a new token is on the disk before it is used; a file is whole
or not there (a temporary file, fsync, rename); `held` lets one process at a time refresh a grant.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 65_536


class TokenFiles:
    """The folder of refresh tokens.

    Args:
        folder: exists and can be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> str | None:
        """Return the newest refresh token of a grant; None when the platform has replaced none.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            with (self._folder / f"{key}.json").open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            raise OSError("the file of a refresh token is no JSON") from None
        token = document.get("refresh_token") if isinstance(document, dict) else None
        return token if isinstance(token, str) and token else None

    def write(self, key: str, refresh_token: str, client: str) -> None:
        """Replace the refresh token of a grant; on the disk when this returns.

        Args:
            key: of the grant.
            refresh_token: the new one.
            client: what people know the grant by; no secret.

        Raises:
            OSError: it cannot be written.
        """
        # mkstemp makes the file for its owner alone.
        handle, temporary = tempfile.mkstemp(prefix=f".{key}.", dir=self._folder)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump({"client": client, "refresh_token": refresh_token}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._folder / f"{key}.json")
        finally:
            Path(temporary).unlink(missing_ok=True)  # there only where writing failed
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Hold a grant against other processes.

        Raises:
            OSError: the lock cannot be had.
        """
        handle = os.open(self._folder / f".{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
