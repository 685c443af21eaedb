"""The four classes of trouble, and the exit codes that they end a process with."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from attributary.consumers.runtime.errors import AttributaryError, ConfigError, Fatal, Fenced, Poison, Retry


def test_every_class_says_what_happened() -> None:
    assert str(Poison("validate", "currency", "must be ISO 4217")) == "validate: currency: must be ISO 4217"
    assert str(Poison("decode", None, "truncated")) == "decode: truncated"
    assert Retry("away", 2.5).after_seconds == 2.5
    assert str(ConfigError("X", "must be set")) == "X: must be set"
    assert issubclass(ConfigError, Fatal)
    assert not issubclass(Retry, Fatal)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Retry("away"), 69),
        (Fatal("no"), 70),
        (Fatal("no", 78), 78),
        (ConfigError("X", "bad"), 78),
        (Fenced("x"), 70),
        (Poison("decode", None, "x"), 70),
        (AttributaryError("x"), 70),
    ],
)
def test_exit_codes(error: AttributaryError, code: int) -> None:
    assert error.exit_code == code


def run(body: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = f"""
        import sys
        from attributary.consumers.runtime import errors
        from attributary.consumers.runtime.run import run_process
        def body(process):
            {body}
        sys.exit(run_process("stitcher", "9.9", body))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_process_that_ends_cleanly() -> None:
    done = run("pass")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_is_told_with_its_stack_and_ends_with_70() -> None:
    done = run("{}['missing']")
    first = json.loads(done.stdout.splitlines()[0])
    assert done.returncode == 70
    assert first["event"] == "stopped by a bug"
    assert "KeyError" in first["exception"]
    assert (first["service"], first["version"]) == ("stitcher", "9.9")
    assert "a bug: KeyError" in done.stderr


def test_trouble_of_our_own_ends_with_its_code_and_one_sentence() -> None:
    done = run('raise errors.Retry("Postgres does not answer")')
    assert done.returncode == 69
    assert done.stderr == "stitcher: Postgres does not answer\n"
    assert "Traceback" not in done.stdout


def test_a_bad_setting_ends_with_78_and_its_name() -> None:
    done = run("pass", METRICS_PORT="hunter2")
    assert done.returncode == 78
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["exit_code"] == 78
    assert "METRICS_PORT" in last["why"]
    assert "METRICS_PORT" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
