"""The tutorial and the README, typed as they stand: one shell, one stack, every command in order."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attributary.local.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.local.broker import Broker

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial" / "index.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_OURS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "META_PIXEL_ID", "GA4_MEASUREMENT_ID", "GROUP")
# What needs a checkout's own environment: `make` has tests of its own (test_local_*, CI's demo), and the environment of
# the tests is active already.
_ELSEWHERE = re.compile(r"^(make \w+|\. \.venv/bin/activate|pip install .*)$")
# A psql for machines that have none: runs what stands after -c.
_PSQL = """#!{python}
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    for row in connection.execute(sys.argv[sys.argv.index("-c") + 1]):
        print(*row, sep=" | ")
"""


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Language, file name and text of every fenced block."""
    for found in _BLOCK.finditer(text):
        yield found[1], found[2], found[3]


def commands(text: str) -> Iterator[str]:
    """The commands of a page's shell blocks, without their comments."""
    for language, _, block in blocks(text):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield line


def typed(line: str) -> str:
    """A line as the test's shell runs it."""
    command = re.sub(r"\s+#.*$", "", line).rstrip()
    if "Ctrl-C" in line:
        return f"timeout --signal=INT 25 {command} || [ $? -eq 124 ]"
    if re.search(r"^(attributary (results|explain)|psql) ", command):
        return f"sleep 4; {command}"  # the auditor stores a moment after the subscriber sees
    if command.startswith("attributary tail"):
        return f"timeout 120 {command}"
    return command


@pytest.fixture
def shell(tmp_path: Path, broker: Broker) -> Iterator[Path]:
    if broker.kind != "jars":
        pytest.skip("the local stack runs on Kafka's jars, and the run uses another kind of broker")
    programs = tmp_path / "bin"
    programs.mkdir()
    if shutil.which("psql") is None:
        shim = programs / "psql"
        shim.write_text(_PSQL.format(python=sys.executable))
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    home = tmp_path / ".attributary"  # where a checkout keeps its stack
    home.mkdir()
    (home / "kafka").symlink_to(cache_dir("kafka"))
    for name in ("examples", "schemas"):
        (tmp_path / name).symlink_to(ROOT / name)
    yield tmp_path
    run(tmp_path, ["attributary down"], is_checked=False)


def run(folder: Path, lines: list[str], *, is_checked: bool = True) -> str:
    """Run lines in one shell, each told before its output; the first that fails ends it."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    environment["PATH"] = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), environment["PATH"]])
    environment["ATTRIBUTARY_HOME"] = str(folder / ".attributary")
    script = "set -e\n" + "".join(f"echo {shell_quoted(line)}\n{line}\n" for line in lines)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert not is_checked or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def shell_quoted(line: str) -> str:
    return "'$ " + line.replace("'", "'\\''") + "'"


def section(output: str, command: str) -> str:
    """What a command printed."""
    (_, _, rest) = output.partition(f"{command}\n")
    return rest.partition("\n$ ")[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.postgres
def test_the_tutorial_runs_from_top_to_bottom(shell: Path) -> None:
    for _, name, text in blocks(TUTORIAL):
        if name:
            (shell / name).write_text(text, encoding="utf-8")
    lines = [line for line in commands(TUTORIAL) if not _ELSEWHERE.match(line)]
    assert len(lines) >= 12
    output = run(shell, [typed(line) for line in lines])
    late = section(output, "--from beginning --limit 2")
    assert "late_touchpoint" in late
    assert "paid_search" in late
    assert "late_touchpoint" in section(output, "explain order-1 --tenant tutorial")
    assert re.search(r"linear +\| paid_search +\| +10\.0", section(output, 'ORDER BY model, value DESC"'))
    assert "order-1 v2 late_touchpoint: 30.00 EUR" in section(output, "python examples/subscribe.py || [ $? -eq 124 ]")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.postgres
def test_the_commands_of_the_readme_run(shell: Path) -> None:
    (shell / "paths.csv").write_text(
        "path,total_conversions,total_null\nsearch > mail,30,50\nmail,10,90\nsearch,20,70\n"
    )
    rows = [
        f"u{user},{time},{channel},{int(time == 3)}" for user in range(30) for time, channel in ((1, "a"), (3, "b"))
    ]
    (shell / "events.csv").write_text("\n".join(["user,time,channel,conversion", *rows]) + "\n")
    lines = [line for line in commands(README) if not _ELSEWHERE.match(line)]
    assert len(lines) >= 6
    lines = ["attributary up --detach" if line.startswith("attributary up") else line for line in lines]
    run(shell, [typed(line) for line in lines])


@pytest.mark.parametrize("text", [TUTORIAL, README], ids=["tutorial", "README"])
def test_what_is_not_run_here_is_known(text: str) -> None:
    left_out = {line.split("#")[0].strip() for line in commands(text) if _ELSEWHERE.match(line.split("#")[0].strip())}
    assert left_out <= {"make demo", "make up", "make setup", ". .venv/bin/activate", "pip install ."}
