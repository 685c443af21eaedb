"""The memory limit of a trainer: a job that needs more fails with the reason, instead of the process being killed.

The limit is `TRAINER_MEMORY_BYTES`, by default nine tenths of the memory limit of the container. It bounds the private
memory of the process (RLIMIT_DATA): an allocation beyond it raises MemoryError, which fails the job alone.
"""

from __future__ import annotations

import resource
from pathlib import Path

from attributary.consumers.runtime.errors import ConfigError

_SHARE = 0.9  # of the limit of the container; the rest is for files in memory and the kernel
_MIN_BYTES = 256 << 20
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class MemoryLimitError(Exception):
    """A job needs more memory than the process may use; the text gives the limit and the cure."""

    def __init__(self) -> None:
        soft = resource.getrlimit(resource.RLIMIT_DATA)[0]
        limit = "" if soft == resource.RLIM_INFINITY else f" than the {soft >> 20:,} MiB of this trainer"
        super().__init__(
            f"the job needs more memory{limit}; choose a shorter window (from, to) or raise TRAINER_MEMORY_BYTES"
        )


def limit_memory(max_bytes: int | None) -> int | None:
    """Limit the private memory of this process. Return the limit in bytes; None: no limit.

    Args:
        max_bytes: the limit; None: from the container; 0: no limit.

    Raises:
        ConfigError: the limit is too small to work with, or above the hard limit of the process.
    """
    wanted = _container_limit() if max_bytes is None else max_bytes
    if not wanted:
        return None
    if wanted < _MIN_BYTES:
        raise ConfigError("TRAINER_MEMORY_BYTES", f"must be 0 or at least {_MIN_BYTES}")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ConfigError("TRAINER_MEMORY_BYTES", f"must not be above the hard limit of the process, {hard}")
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    return wanted


def _container_limit(file: Path = _CGROUP) -> int | None:
    try:
        text = file.read_text("ascii").strip()
    except OSError:  # no container, or no cgroup v2
        return None
    if not text.isdecimal():  # "max": no limit
        return None
    return max(int(int(text) * _SHARE), _MIN_BYTES)
