"""Environments of their own for what the bench compares with: installed by package name, once, and kept."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_INSTALL_SECONDS = 600


class PeerUnavailableError(RuntimeError):
    """A peer cannot be installed or imported here; the text says why."""


def install(venv: Path, packages: Sequence[str], imports: str) -> Path:
    """Install packages into an environment of their own, unless they are there; returns its interpreter.

    Args:
        venv: folder of the environment.
        packages: requirements, as pip takes them.
        imports: names that must be importable afterwards, separated by commas.

    Raises:
        PeerUnavailableError: when that fails.
    """
    python = venv / "bin" / "python"
    probe = [str(python), "-c", f"import {imports}"]
    if python.exists() and _failure(probe) is None:
        return python
    failure = (
        _failure([sys.executable, "-m", "venv", str(venv)])
        or _failure([str(python), "-m", "pip", "install", "--quiet", *packages])
        or _failure(probe)
    )
    if failure is not None:
        raise PeerUnavailableError(f"{packages[0]} cannot be installed: {failure}")
    return python


def _failure(command: list[str]) -> str | None:
    """None, or the last line of what a failing command printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {_INSTALL_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
