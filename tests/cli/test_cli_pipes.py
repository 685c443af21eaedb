"""Commands in pipes: a reader that goes away ends them silently, output that cannot be written is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from attributary.local.stages import command_line

LINES = ["settings", "metrics", "metrics --markdown", "schemas show result", "schemas list", "--help", "models --help"]


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_reader_that_went_away_ends_a_command_as_sigpipe_would(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command_line(*line.split()), env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=240,
            check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("line", ["settings", "schemas show result"])
def test_output_that_cannot_be_written_is_told(line: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command_line(*line.split()), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=240,
            check=False,
        )  # fmt: skip
    assert done.returncode == 74
    assert done.stderr == "attributary: the output cannot be written: No space left on device\n"
