"""Every command that there is, a line of each that is right, and what must be true of the ending of a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.testing import CliRunner

from attributary.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMAND = typer.main.get_command(app)
SECRET = "hunter2"
# Processes and whole stacks run until they are stopped; what stops their start is tested with them.
RUN_ON = {
    "stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "express", "trainer", "forwarder", "all",
    "up", "down", "demo", "fake-destinations", "collect",
}  # fmt: skip
CODES = {1, 2, 3, 69, 70, 74, 78}
VALUES = {
    "kind": "train", "model": "markov", "version": "1", "older": "1", "newer": "2", "name": "touchpoint",
    "place": "attribution.conversions.v1.attribution.stitcher.dlq[0]@0", "group": "attribution.stitcher",
    "tenant": "acme", "before": "1", "after": "2", "what": "credit", "source": "shop",
    "spend": "email=100", "mapping": "google",
}  # fmt: skip
FILES = {"webhooks": "webhooks.yaml"}  # what another file than a table is needed for
ALWAYS = {
    ("tail",): ["--until-end", "--from", "beginning"],
    ("positions", "forget"): ["--yes"],
    ("simulate",): ["--touchpoints", "10", "--conversions", "1"],
    ("forward", "retry"): ["no-such"],
    ("models", "train"): ["--closing", "all"],
}


class Case(NamedTuple):
    path: tuple[str, ...]
    command: Any

    @property
    def name(self) -> str:
        return " ".join(self.path)


def cases(command: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[Case]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        if not child.hidden and (path or name not in RUN_ON or getattr(child, "commands", {})):
            yield from cases(child, (*path, name))
    if path and not children:
        yield Case(path, command)


CASES = list(cases())


class Ran(NamedTuple):
    line: Sequence[str]
    code: int
    out: str
    err: str
    failed: BaseException | None


def base(case: Case, files: Path, without: str = "") -> list[str]:
    """Return a line that is right as far as can be told from the names of the parameters."""
    words = list(ALWAYS.get(case.path, []))
    for option in case.command.params:
        is_needed = option.required or (option.name == "tenant" and option.default == "")
        if not is_needed or option.name == without:
            continue
        file = option.name in {"file", "files"} or option.type_descriptor.is_path
        value = str(files / FILES.get(option.name, "paths.csv")) if file else VALUES.get(option.name, "no-such")
        words += [value] if option.param_type_name == "argument" else [option.opts[0], value]
    return words


def run(path: Sequence[str], words: Sequence[str], variables: dict[str, str | None]) -> Ran:
    done = CliRunner().invoke(app, [*path, *words], env=variables, input="")
    failed = done.exception if not isinstance(done.exception, SystemExit) else None
    return Ran([*path, *words], done.exit_code, done.stdout, done.stderr, failed)


def faults(ran: Ran, *codes: int, says: str = "") -> list[str]:
    """Return what is wrong with an ending: a traceback, no sentence, several, an odd code, something on stdout."""
    said = ran.err.strip().splitlines()
    both = ran.out + ran.err
    broken = {
        "a traceback": ran.failed is not None or "Traceback" in both,
        "an odd code": ran.code not in (codes or (0, *CODES)),
        "no sentence": ran.code not in {0, 3} and not said,
        "not begun by the name": ran.code not in {0, 3} and "attributary: " not in ran.err,
        "too many lines": ran.code not in {0, 3} and len(said) > 3,
        "something on stdout": ran.code not in {0, 1, 3} and bool(ran.out.strip()),
        "a secret": SECRET in both,
        "words of a library": "Input should" in both or "parse string" in both,
        "escape codes": "\x1b" in both,
        f"it does not say {says}": says not in ran.err,
    }
    told = f"{type(ran.failed).__name__} {ran.failed}" if ran.failed else f"{ran.out[-200:]!r} {ran.err[-300:]!r}"
    words = [word if len(word) < 100 else f"{word[:20]}..." for word in ran.line]
    return [f"{words!r}: {what} ({ran.code}): {told}" for what, is_so in broken.items() if is_so]


def is_number(option: Any) -> bool:
    return option.type_descriptor.annotation in {int, float} or option.type_descriptor.is_ranged
