"""The command line as people meet it: helps that teach, exit codes that tell, documents that name real commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from attributary.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).resolve().parents[2]
COMMAND = typer.main.get_command(app)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").glob("*.md"))]
# What is said in one sentence needs no example: the process commands, which take no argument at all, and these.
_NEEDS_NO_EXAMPLE = {"settings"}


def is_group(command: Any) -> bool:
    return bool(getattr(command, "commands", None))


def commands(command: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def found(path: tuple[str, ...]) -> Any:
    command = COMMAND
    for name in path:
        command = getattr(command, "commands", {})[name]
    return command


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_help_works_and_says_something(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0, done.output
    assert (found(path).help or "").strip()
    assert not re.search(r"<(str|int|float|bool|list)\b", done.output), "a type of Python's instead of what to type"


@pytest.mark.parametrize(
    "path", [path for path in commands() if path and found(path).params and not is_group(found(path))], ids=" ".join
)
def test_the_help_of_a_command_with_options_shows_how(path: tuple[str, ...]) -> None:
    command = found(path)
    if path[-1] in _NEEDS_NO_EXAMPLE or all(option.name == "help" for option in command.params):
        return
    text = command.help or ""
    assert "xample" in text, f"attributary {' '.join(path)} --help has no example"
    assert f"attributary {path[0]}" in text


def test_every_option_is_explained() -> None:
    bare = [
        f"{' '.join(path)} {option.name}"
        for path in commands()
        for option in found(path).params
        if not getattr(option, "help", None) and option.name != "help"
    ]
    assert bare == []


def test_without_a_command_the_help_is_shown() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code in (0, 2)
    assert "Usage" in done.output


def test_the_version() -> None:
    from attributary import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"{__version__}\n"


@pytest.mark.parametrize(
    "line",
    ["nonsense", "tail nonsense", "tail results --from soon", "tail --limit 0", "db", "demo --touchpoints 1",
     "positions forget", "stitcher --unknown"],
)  # fmt: skip
def test_a_wrong_line_ends_with_2(line: str) -> None:
    assert CliRunner().invoke(app, line.split()).exit_code == 2


@pytest.mark.parametrize("line", ["db status", "db migrate", "positions show", "positions forget g --yes"])
def test_a_missing_setting_ends_with_78_and_its_name(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    done = CliRunner().invoke(app, line.split())
    assert (done.exit_code, done.stderr) == (78, "attributary: DATABASE_URL: must be set\n")


def test_tail_without_brokers_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    done = CliRunner().invoke(app, ["tail", "results"])
    assert (done.exit_code, done.stderr) == (78, "attributary: KAFKA_BOOTSTRAP_SERVERS: must be set\n")


def test_a_database_that_is_down_ends_with_69(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://jane:hunter2@127.0.0.1:{free_port}/x")
    done = CliRunner().invoke(app, ["db", "status"])
    assert done.exit_code == 69
    assert done.stderr.startswith(f"attributary: Postgres at 127.0.0.1:{free_port}, database x: nothing listens there")
    assert "hunter2" not in done.output


def test_migrating_from_the_command_line(monkeypatch: pytest.MonkeyPatch, blank_database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", blank_database)
    run = CliRunner().invoke
    assert run(app, ["db", "status"]).exit_code == 1
    planned = run(app, ["db", "migrate", "--dry-run"])
    assert planned.output.startswith("would apply")
    applied = run(app, ["db", "migrate"])
    assert applied.output == planned.output.replace("would apply", "applied")
    assert run(app, ["db", "migrate"]).output == "applied 0 migrations\n"
    assert run(app, ["db", "status"]).exit_code == 0
    assert run(app, ["positions", "show"]).output == "no offset is stored yet: no stage has finished a batch\n"
    assert run(app, ["positions", "forget", "g"], input="n\n").exit_code == 1
    assert run(app, ["positions", "forget", "g", "--yes"]).stderr.startswith("attributary: no offset of a group g")


@pytest.mark.parametrize("name", ["settings", "metrics"])
def test_a_page_made_from_code_is_checked(tmp_path: Path, name: str) -> None:
    run = CliRunner().invoke
    page = tmp_path / f"{name}.md"
    assert run(app, [name, "--check", str(page)]).exit_code == 1
    page.write_text(run(app, [name, "--markdown"]).output)
    assert run(app, [name, "--check", str(page)]).exit_code == 0
    page.write_text(page.read_text() + "more\n")
    assert run(app, [name, "--check", str(page)]).exit_code == 1
    assert run(app, [name]).exit_code == 0


def test_the_settings_page_lists_what_the_issue_names() -> None:
    page = CliRunner().invoke(app, ["settings", "--markdown"]).output
    for variable in (
        "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "META_PIXEL_ID", "META_ACCESS_TOKEN",
        "META_TEST_EVENT_CODE", "GA4_MEASUREMENT_ID", "GA4_API_SECRET", "ATTRIBUTION_POLICY_FILE",
    ):  # fmt: skip
        assert f"| `{variable}` |" in page


# Code starts a line that is indented or fenced, or stands between backticks.
_CALL = re.compile(
    r"(?:^\s*(?:\$ )?|`)(?:[A-Z][A-Z_0-9]*=\S*\s+)*(?:\.venv/bin/)?(attributary|make)((?: [^`#&>;\n]*)?)"
)


def code(text: str) -> Iterator[str]:
    """Lines of code, and lines of prose from their first backtick on."""
    is_fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield line
        elif "`" in line:
            yield line[line.index("`") :]


def calls() -> Iterator[tuple[str, str, str]]:
    for document in DOCUMENTS:
        for line in code(document.read_text(encoding="utf-8")):
            for program, rest in _CALL.findall(line):
                yield str(document.relative_to(ROOT)), program, rest.strip()


def options_of(command: Any) -> dict[str, bool]:
    """Names of the options, and whether each takes a value."""
    found_ = {"--help": False, "--version": False}
    for each in command.params:
        for name in (*each.opts, *each.secondary_opts):
            found_[name] = not getattr(each, "is_flag", False)
    return found_


def fault_of(arguments: list[str]) -> str | None:
    """What is wrong with a command line of ours, by the commands and options alone."""
    command, words = COMMAND, iter(arguments)
    for word in words:
        children, options = getattr(command, "commands", {}), options_of(command)
        name, _, value = word.partition("=")
        if word == "|":
            return None  # what follows is another program's
        if word.startswith("--") or name in options:
            if name not in options:
                return f"no option {word}"
            if options[name] and not value:
                next(words, None)
        elif children:
            for each in word.split("|"):
                if each not in children and not re.fullmatch(r"[A-Z]+|\.\.\.|<.*>", each):
                    return f"no command {each}"
            command = children.get(word, command)
    return None


def test_every_command_in_the_documents_exists() -> None:
    seen, faults = 0, []
    for document, program, rest in calls():
        if program == "attributary":
            seen += 1
            fault = fault_of(shlex.split(rest.replace("'", "").replace('"', "")))
            if fault is not None:
                faults.append(f"{document}: attributary {rest}: {fault}")
    assert faults == []
    assert seen > 30


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z.]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {(document, word) for document, program, rest in calls() if program == "make" for word in rest.split()[:1]}
    assert [pair for pair in sorted(named) if pair[1] not in targets and not re.match(r"[A-Z]+=", pair[1])] == []
    assert len(named) > 3


@pytest.mark.parametrize(
    ("line", "fault"),
    [("tail results --json", None), ("tail results --jason", "no option --jason"), ("db migrat", "no command migrat")],
)
def test_the_check_of_the_documents_finds_faults(line: str, fault: str | None) -> None:
    assert fault_of(line.split()) == fault


@pytest.mark.parametrize("theirs", ["notes.txt", "logs"])
def test_the_demo_empties_no_folder_that_it_did_not_make(tmp_path: Path, theirs: str) -> None:
    (tmp_path / theirs).mkdir()
    done = CliRunner().invoke(app, ["demo", "--folder", str(tmp_path), "--broker", "mock"])
    assert done.exit_code == 2
    assert (tmp_path / theirs).exists()
