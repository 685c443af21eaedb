"""The group of all commands: help in groups, and one place where every failure becomes a sentence and an exit code.

Contract: a failure is one line on standard error, ``attributary: ...``, and nothing of it is on standard output. Exit
codes: see ``exits``. A reader of a pipe that goes away (``| head``) ends the command silently with 141, as SIGPIPE
would; Ctrl-C ends it silently with 130. A failure that ``outcome.explain`` does not know keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from typer import Abort, BadParameter
from typer.core import TyperGroup

from attributary.cli import exits

GROUPS: Mapping[str, Sequence[str]] = {
    "Start": ("demo", "up", "down"),
    "Publish": ("produce", "simulate"),
    "Read": ("results", "report", "export", "explain", "tail", "conversions", "events", "identities", "analyze"),
    "Spend": ("spend", "fx", "budget", "experiment"),
    "Models and jobs": ("models", "refit", "policy", "jobs"),
    "Operate": (
        "status",
        "doctor",
        "db",
        "topics",
        "acls",
        "audit",
        "schemas",
        "dlq",
        "forward",
        "destinations",
        "positions",
        "people",
        "tenants",
        "cell",
        "retention",
        "roles",
        "erase",
        "export-person",
        "verify",
        "rebuild",
    ),
    "Look up": ("settings", "metrics"),
    "Processes": (
        "stitcher",
        "attributor",
        "auditor",
        "reporter",
        "spender",
        "sweeper",
        "express",
        "trainer",
        "forwarder",
        "all",
        "collect",
        "serve",
        "fake-destinations",
    ),
}
_OTHERS = "More"
_TYPES = {"<int>": "<number>", "<int range>": "<number>", "<float>": "<number>", "<float range>": "<number>"}
# What pydantic says of a value, and what it means for somebody who typed it.
_PYDANTIC = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer, .*?(?=;|$)", "must be a whole number"),
    (r"Input should be a valid number, .*?(?=;|$)", "must be a number"),
    (r"Input should be greater than or equal to ", "must be at least "),
    (r"Input should be less than or equal to ", "must be at most "),
    (r"Input should be greater than ", "must be above "),
    (r"Input should be less than ", "must be below "),
    (r"Input should be ", "must be "),
    (r"Got unexpected extra argument\(s\)", "too many arguments:"),
)
_NAMED_TYPES = {"tenant": "<tenant>"} | dict.fromkeys(
    ("from", "to", "since", "until", "as_of", "changed_since", "now", "start", "end", "at"), "<time>"
)
COMPLETION = "_ATTRIBUTARY_COMPLETE"


class CommandGroup(TyperGroup):
    """A group of commands; its help has the whole first sentence of each, and its options say what to type."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for command in (self, *self.commands.values()):
            for option in command.params:
                _say_what_to_type(option)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in groups, each with the first sentence of its help."""
        group_of = {name: group for group, names in self.groups().items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in self.groups()}
        for name in (*group_of, *(each for each in self.list_commands(ctx) if each not in group_of)):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.setdefault(group_of.get(name, _OTHERS), []).append((name, _first_sentence(command)))
        for group, found in rows.items():
            if found:
                with formatter.section(group if self.groups() else "Commands"):
                    formatter.write_dl(found)

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the commands by group, in the order of the help."""
        return {}


class CommandLine(CommandGroup):
    """The top of the command line."""

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the commands by group, in the order of the help."""
        return GROUPS

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and end the process with its exit code."""
        if not kwargs.get("standalone_mode", True) or COMPLETION in os.environ:
            return super().main(*args, **kwargs)
        sys.exit(self._code(*args, **kwargs))

    def _code(self, *args: Any, **kwargs: Any) -> int | str | None:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
            sys.stdout.flush()
        except BrokenPipeError:
            return _reader_left()
        except SystemExit as ending:
            # rich turns a reader that went away into an ending of its own.
            return _reader_left() if isinstance(ending.__context__, BrokenPipeError) else ending.code
        except KeyboardInterrupt:
            return exits.INTERRUPTED
        except _told_kinds() as error:  # looked up when something is raised: it imports what a command may not need
            code = _told(error)
            if code is None:
                raise
        return code if isinstance(code, int) else 0


def load_plainly(*libraries: str) -> None:
    """Load libraries without rich, which they take where it is installed: a fifth of the CPU of a process's start.

    structlog would colour tracebacks with it, and httpx has a command line of its own. Processes log JSON.
    """
    loaded = sys.modules.pop("rich", None)
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it meanwhile fails, as if it were not installed
    try:
        for name in libraries:
            importlib.import_module(name)
    finally:
        del sys.modules["rich"]
        if loaded is not None:
            sys.modules["rich"] = loaded


def _say_what_to_type(option: Any) -> None:
    """Let the help name what an option takes in words instead of types of Python: <time>, not <str>."""
    shown = getattr(option, "display_type", None)
    if shown is None or getattr(shown, "is_in_words", False):  # a version of the library without it
        return

    def in_words(context: Any) -> str:
        text = re.sub(r"^<list\[(.*)\]>$", r"<\1>", str(shown(context)))
        return _NAMED_TYPES.get(option.name, "<text>") if text == "<str>" else _TYPES.get(text, text)

    in_words.is_in_words = True  # type: ignore[attr-defined]
    option.display_type = in_words


def _first_sentence(command: Any) -> str:
    text = " ".join((command.short_help or command.help or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _told_kinds() -> tuple[type[Exception], ...]:
    """Return the errors that a user, a setting or a service can cause; every other one passes with its traceback."""
    from attributary.cli.outcome import explained_kinds
    from attributary.schemas.installation import PrefixError

    try:
        kinds = explained_kinds()
    except PrefixError:  # with a bad prefix nothing that names a topic can be imported
        kinds = ()
    return (_usage_kind(), Abort, PrefixError, *kinds)


def _usage_kind() -> type[Exception]:
    """Return the class above all wrong command lines, by its name: it moved between versions of the library."""
    return next(kind for kind in BadParameter.__mro__ if kind.__name__ == "ClickException")


def _told(error: Exception) -> int | None:
    """Say what went wrong; return the exit code, or None for what nobody but this program can be blamed for."""
    from attributary.cli.outcome import explain, say

    if isinstance(error, _usage_kind()):
        return _wrong_usage(error)
    if isinstance(error, Abort):
        say("nothing was done")
        return exits.FAILED
    failure = explain(error)
    if failure is None:
        return None
    say(failure.text)
    return failure.code


def _wrong_usage(error: Any) -> int:
    from attributary.cli.outcome import say

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "attributary"
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    text = text.removeprefix("Invalid value for ").removeprefix("Invalid value: ")
    for pattern, words in _PYDANTIC:
        text = re.sub(pattern, words, text)
    say(f"{text}; see {path} --help")
    return int(error.exit_code)


def _reader_left() -> int:
    """Let nothing more be written where nobody reads."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.PIPE
