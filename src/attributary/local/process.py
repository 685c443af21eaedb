"""Programs that Attributary starts for itself: brokers, databases, its own stages.

Contract: a `ManagedProcess` belongs to the handle that started it. It runs in a session of its own, so that a
Ctrl-C in the terminal reaches only the parent, which then stops its children in the right order. A guard,
a shell of a few kilobytes that waits on a pipe held open by the parent, ends the child when the parent is
gone for whatever reason, `kill -9` included.

Invariant: no child outlives its parent unless it was started with `guarded=False`, which is how a detached
stack is meant to live on.
"""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_GUARD_SCRIPT = """
cat >/dev/null
kill -"$1" "$2" 2>/dev/null
kill -CONT "$2" 2>/dev/null
i=0
while [ $i -lt 100 ] && kill -0 "$2" 2>/dev/null; do sleep 0.1; i=$((i+1)); done
kill -KILL "$2" 2>/dev/null
"""

_LOG_TAIL_BYTES = 4_000


class ProcessFailedError(RuntimeError):
    """A program could not be started, failed, or did not become ready; the text says what it printed."""


class ManagedProcess:
    """One running program with its log file; made by `spawn`."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        log: Path,
        stop_signal: signal.Signals,
        guard: subprocess.Popen[bytes] | None,
    ) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._stop_signal = stop_signal
        self._guard = guard

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self.returncode}"
        return f"<ManagedProcess {self.name} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._dismiss_guard()
        return code

    def log_tail(self) -> str:
        """The end of what the program printed."""
        try:
            content = self.log.read_bytes()
        except FileNotFoundError:
            return ""
        return content[-_LOG_TAIL_BYTES:].decode("utf-8", errors="replace").strip()

    def fail_if_ended(self) -> None:
        """Raise `ProcessFailedError`, with the end of the log, if the program is not running any more."""
        if not self.running:
            raise ProcessFailedError(
                f"{self.name} ended with {self.returncode}. Its log {self.log} ends:\n{self.log_tail()}"
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal; harmless when the program has already ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def suspend(self) -> None:
        """SIGSTOP: the process keeps its sockets and answers nothing, which is how a zombie is made."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `suspend`."""
        self.send(signal.SIGCONT)

    def terminate(self) -> None:
        """Send the stop signal and return at once; `stop` afterwards waits."""
        self.send(self._stop_signal)

    def leave(self) -> None:
        """Give up the handle of a child that lives on by itself."""
        # Popen warns when it is collected before its child has ended; here that is the intention.
        self._process.returncode = 0

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for the end; returns the exit code, or None when the time is over."""
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self._dismiss_guard()
        return code

    def stop(self, timeout_seconds: float = 20.0, number: signal.Signals | None = None) -> int:
        """Ask the program to end, insist with SIGKILL after `timeout_seconds`; returns the exit code."""
        self.send(number or self._stop_signal)
        self.resume()
        code = self.wait(timeout_seconds)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """SIGKILL, and wait until it is gone; returns the exit code."""
        self.send(signal.SIGKILL)
        code = self._process.wait()
        self._dismiss_guard()
        return code

    def _dismiss_guard(self) -> None:
        """End the guard before its pid could mean another program."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        guard.kill()
        guard.wait()
        if guard.stdin is not None:
            guard.stdin.close()


def spawn(
    argv: Sequence[str],
    *,
    name: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    identity: tuple[int, int] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    guarded: bool = True,
) -> ManagedProcess:
    """Start a program and append its output to `log`.

    Args:
        argv: The program and its arguments; no shell is involved.
        name: What messages call it.
        log: File for stdout and stderr; its folder must exist.
        env: The whole environment of the child; inherited when None.
        cwd: Its working folder; inherited when None.
        identity: Numeric user and group to run as (needs root); inherited when None.
        stop_signal: What `ManagedProcess.stop` sends, and the guard when the parent dies.
        guarded: False lets the child outlive its parent.

    Raises:
        ProcessFailedError: when the program cannot be executed.
    """
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(  # noqa: S603 (arguments come from this package, never from a network)
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                user=None if identity is None else identity[0],
                group=None if identity is None else identity[1],
                extra_groups=None if identity is None else [],
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessFailedError(f"{name} cannot be started: {error}") from error
    guard = _guard(process.pid, stop_signal) if guarded else None
    return ManagedProcess(name, process, log, stop_signal, guard)


def _guard(pid: int, stop_signal: signal.Signals) -> subprocess.Popen[bytes]:
    """Start the shell that ends `pid` once the pipe to this process breaks."""
    return subprocess.Popen(  # noqa: S603 (a constant script; its two arguments are a signal name and a pid)
        ["/bin/sh", "-c", _GUARD_SCRIPT, "guard", stop_signal.name.removeprefix("SIG"), str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(
    argv: Sequence[str],
    *,
    name: str,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    identity: tuple[int, int] | None = None,
) -> str:
    """Run a program to its end and return what it printed; see `spawn` for the arguments.

    Raises:
        ProcessFailedError: when it cannot be executed, takes too long, or ends with another code than 0.
    """
    try:
        done = subprocess.run(  # noqa: S603 (arguments come from this package, never from a network)
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            user=None if identity is None else identity[0],
            group=None if identity is None else identity[1],
            extra_groups=None if identity is None else [],
            timeout=timeout_seconds,
            check=False,
        )
    except OSError as error:
        raise ProcessFailedError(f"{name} cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ProcessFailedError(f"{name} took more than {timeout_seconds:.0f} s and was ended") from error
    printed = done.stdout.decode("utf-8", errors="replace").strip()
    if done.returncode != 0:
        raise ProcessFailedError(f"{name} ended with {done.returncode}:\n{printed[-_LOG_TAIL_BYTES:]}")
    return printed


def wait_until_ready(child: ManagedProcess, probe: Callable[[], str | None], *, timeout_seconds: float) -> None:
    """Call `probe` until it returns None; its text is the reason why the child is not ready yet.

    Raises:
        ProcessFailedError: when the child ended, or is not ready after `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    while (reason := probe()) is not None:
        child.fail_if_ended()
        if time.monotonic() > deadline:
            raise ProcessFailedError(
                f"{child.name} is not ready after {timeout_seconds:.0f} s: {reason}. "
                f"Its log {child.log} ends:\n{child.log_tail()}"
            )
        time.sleep(0.05)
