"""Every shell block of README and docs, typed in order, on local stacks whose ports are not the usual ones."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attributary.local.paths import cache_dir
from attributary.local.ports import free_ports
from tests.docs import shell_pages as pages
from tests.docs.shell_pages import AWAITED, BEFORE, ELSEWHERE, ENDS, FIRST, INSTEAD, NOT_RUN, PAGES, ROOT, Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.local.broker import Broker

USUAL_PORTS = (9092, 9093, 54320, 8080, 8090, *range(9464, 9473))
_NOT_OURS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "META_PIXEL_ID", "GA4_MEASUREMENT_ID", "GROUP")
REST = [page for page in PAGES if page not in {*FIRST, *ELSEWHERE} and pages.commands(page)]
ALL = [command for page in PAGES if page not in ELSEWHERE for command in pages.commands(page)]
# Each command is told before its output. `awaited`: again until it succeeds and says the words; `running`: in the
# background until it has said them; at the end of the page it gets SIGINT, as by Ctrl-C.
_SHELL = r"""
set -e -m
awaited() {
  local text="$1" said code
  for _ in $(seq 240); do
    code=0; said=$(eval "$2" 2>&1) || code=$?
    if [ $code = 0 ] && grep -qF -- "$text" <<<"$said"; then break; fi
    sleep 0.5
  done
  echo "$said"; [ $code = 0 ] && grep -qF -- "$text" <<<"$said"
}
running() {
  local text="$1" log="running-$RANDOM.log"
  (eval "exec env $2") >$log 2>&1 &
  local pid=$!
  for _ in $(seq 1800); do
    if grep -qF -- "$text" $log || ! kill -0 $pid 2>/dev/null; then break; fi
    sleep 0.1
  done
  cat $log; grep -qF -- "$text" $log; kill -INT -- -$pid; local code=0; wait $pid || code=$?
  [ $code = 0 ] || [ $code = 130 ]
}
end() { for pid in $(jobs -p); do kill -- -$pid 2>/dev/null || true; done; }
trap end EXIT
if [ -f "$ATTRIBUTARY_HOME/up/env" ]; then . "$ATTRIBUTARY_HOME/up/env"; fi
"""


class Session:
    """A reader's folder, in which pages are typed; the stack outlives a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}
        self._ports = {f"PORT_{number}": str(port) for number, port in enumerate(free_ports(2), start=1)}
        (folder / "bin").mkdir()
        if psql := pages.psql_program():
            (folder / "bin" / "psql").symlink_to(psql)
        home = folder / ".attributary"  # where a checkout keeps its stack
        home.mkdir()
        (home / "kafka").symlink_to(cache_dir("kafka"))

    def type(self, page: str) -> str:
        """Type the commands of a page; the first that fails ends it."""
        pages.files_of(page, self.folder)
        pages.events_parquet(self.folder)
        lines = [self.typed(each) for each in pages.commands(page) if not reason(each)]
        self.said[page] = self.run(lines)
        return self.said[page]

    def typed(self, command: Command) -> str:
        """Return a command as the shell gets it, told before its output."""
        line = instead(command.line, self._ports)
        awaited = _words(command)
        before = [text for pattern, text in BEFORE.items() if command.matches(pattern)]
        told = "".join(f"{text}\n" for text in (*before, f"echo {shlex.quote('$ ' + command.line)}"))
        if command.runs_on:
            return f"{told}running {shlex.quote(awaited[0])} {shlex.quote(line)}"
        if awaited:
            return f"{told}awaited {shlex.quote(awaited[0])} {shlex.quote(line)}"
        codes = [code for pattern, (code, _) in ENDS.items() if command.matches(pattern)]
        return told + line + "".join(f" || [ $? = {code} ]" for code in codes)

    def run(self, lines: list[str], *, is_checked: bool = True) -> str:
        """Run lines in one shell."""
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        programs = [str(self.folder / "bin"), str(Path(sys.executable).parent), environment["PATH"]]
        environment |= {"PATH": os.pathsep.join(programs), "ATTRIBUTARY_HOME": str(self.folder / ".attributary")}
        done = subprocess.run(
            # A run in the background ignores SIGINT, and so would all that it starts.
            ["env", "--default-signal=INT", "bash", "-c", _SHELL + "\n".join(lines)],
            cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=1_500, check=False,
        )  # fmt: skip
        assert not is_checked or done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout


def reason(command: Command) -> str:
    """Why a command is not typed here; empty when it is."""
    return next((why for pattern, why in NOT_RUN.items() if command.matches(pattern)), "")


def instead(line: str, values: dict[str, str]) -> str:
    for pattern, text, _ in INSTEAD:
        line = re.sub(pattern, text.format(**values).replace("\\", r"\\"), line)
    return line


def section(output: str, command: str) -> str:
    """What a command printed."""
    (_, found, rest) = output.partition(f"{command}\n")
    assert found, command
    return rest.partition("\n$ ")[0]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Session]:
    """The folder in which the first pages were typed; a stack with stand-ins runs."""
    if broker.kind != "jars":
        pytest.skip("the local stack runs on Kafka's jars, and the run uses another kind of broker")
    session = Session(tmp_path_factory.mktemp("reader"))
    with ExitStack() as held:
        for port in USUAL_PORTS:
            taken = held.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # another program has it, which is as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        try:
            for page in FIRST:
                session.type(page)
            yield session
        finally:
            session.run(["attributary down"], is_checked=False)


@pytest.mark.slow
@pytest.mark.timeout(4_000)
@pytest.mark.postgres
def test_the_first_pages_do_what_they_say_on_unusual_ports(session: Session) -> None:
    readme, tutorial, forward = (session.said[page] for page in FIRST)
    up = section(readme, "attributary up --detach")
    assert "kafka-9092: port 9092 is taken by another program, using " in up
    assert "postgres: port 54320 is taken by another program, using " in up
    assert "127.0.0.1:9092" not in up
    assert "next: attributary results --tenant acme" in readme
    late = section(tutorial, "--from beginning --limit 2")
    assert "late_touchpoint" in late
    assert "paid_search" in late
    assert re.search(r"linear +\| paid_search +\| +10\.0", section(tutorial, 'ORDER BY model, value DESC"'))
    assert "meta" in section(forward, "attributary forward explain order-1")


@pytest.mark.slow
@pytest.mark.timeout(4_000)
@pytest.mark.postgres
@pytest.mark.parametrize("page", REST)
def test_the_shell_blocks_of_a_page_run_in_order(page: str, session: Session) -> None:
    session.type(page)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_what_looks_like_a_command_stands_in_a_shell_block(page: str) -> None:
    assert pages.unfenced(page) == []


def test_no_line_of_the_tables_is_stale() -> None:
    patterns = [*NOT_RUN, *ENDS, *AWAITED, *BEFORE]
    assert [each for each in patterns if not any(command.matches(each) for command in ALL)] == []
    assert [each for each, *_ in INSTEAD if not any(re.search(each, command.line) for command in ALL)] == []
    assert [command.text for command in ALL if command.runs_on and not reason(command) and not _words(command)] == []
    assert {*FIRST, *ELSEWHERE} <= set(PAGES)
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text("utf-8")


def _words(command: Command) -> list[str]:
    return [text for pattern, text in AWAITED.items() if command.matches(pattern)]
