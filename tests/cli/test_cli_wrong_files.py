"""Every option that takes a file, with every kind of wrong one: the line names it and the cure, and the end is near.

The cases are made from the commands themselves. Nothing here needs a broker or a database: what is wrong with a file of
the command line is told before anything outside is asked.
"""

from __future__ import annotations

import gzip
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attributary.schemas.yaml_file import YamlFileError, read_yaml
from tests.cli.command_cases import CASES, Case, Ran, base, faults, run

SECONDS = 60  # a busy machine; what never ends is found all the same
NAME = "given"
# What a command writes. That it cannot be written may be found out once there is something to write.
WRITTEN = {"out", "output", "truth", "dry_run"}
# What else a line needs before its file is looked at.
MORE = {
    ("export-person",): ["--user-id", "u-1"],
    ("erase", "verify"): ["--user-id", "u-1"],
    ("simulate",): ["--dry-run", "events.jsonl"],
}
# Any file will do: it is searched, or compared, or it is the bytes of a record that is not there.
TAKES_ANY = {("erase", "verify"), ("metrics",), ("schemas", "decode")}
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "gzip": gzip.compress(b"a,b"),
    "utf16": "a,b\n1,2\n".encode("utf-16"),
    "latin1": "pr\u00e9nom,b\n1,2\n".encode("latin-1"),
    "half_json": b'{"a": [1, 2',
    "null": b"null",
    "list": b"[]",
    "number": b"3",
    "object": b"{}",
    "deep": b"[" * 3_000,
    "digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "nan": b'{"a": NaN}',
    "no_such_day": b"a: 2026-02-31\n",
    "bad_yaml": b"a: [b\n\t- : :\n",
    "no_alias": b"a: *nowhere\n",
    "tag": b'!!python/object/apply:os.system ["true"]',
    "control": b"a: \x1b[31m\x07\n",
    "other_types": b"map: 3\nconstant: [1]\nversion: {}\nkeys: 7\nwebhooks: 1\nproducer: 3\n",
    "open_quote": b'a,b\n"1,2\n3,4\n',
    "ragged": b"a,b\n1\n1,2,3\n",
    "header_only": b"path,total_conversions\n",
}
# Where the ending says how a file is read.
ENDINGS = {
    ("produce", "file"): (".csv", ".jsonl", ".avro"),
    ("forward map", "file"): (".csv", ".jsonl", ".avro"),
    ("analyze", "file"): (".csv", ".parquet"),
}
NOWHERE: dict[str, str | None] = dict.fromkeys(("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "COLUMNS"))


def takes_file(option: Any) -> bool:
    kind = option.type_descriptor
    return option.name == "file" or kind.is_path or "Path" in str(getattr(kind, "annotation", ""))


OPTIONS = [(case, option) for case in CASES for option in case.command.params if takes_file(option)]
READ = [(case, option) for case, option in OPTIONS if option.name not in WRITTEN]
WRITES = [(case, option) for case, option in OPTIONS if option.name in WRITTEN]


def name_of(value: Any) -> str:
    return value.name if isinstance(value, Case) else getattr(value, "name", "")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        (folder / "paths.csv").write_text("path,total_conversions\na > b,3\n")
        (folder / "webhooks.yaml").write_text(
            "webhooks:\n- {name: shop, provider: shopify, tenant: acme, path: shop-5f0d1c9a7e42, "
            "secrets: [env:SHOPIFY_SECRET], options: {shop_domain: shop.example, currency: EUR}}\n"
        )
        (folder / "folder.csv").mkdir()
        yield folder


@contextmanager
def an_end() -> Iterator[None]:
    """Fail a call that does not end."""

    def late(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run without the rights of root, for whom no file is unreadable."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def given(case: Case, option: Any, here: Path, value: str) -> Ran:
    words = [*base(case, here, without=option.name), *MORE.get(case.path, [])]
    if option.name == "dry_run":
        words = base(case, here)
    put = [] if option.param_type_name == "argument" else [option.opts[0]]
    with an_end():
        return run(case.path, [*words, *put, value], NOWHERE)


def is_named(ran: Ran, option: Any, value: str) -> bool:
    """Whether the file is named, by its last part, or the option is."""
    shown = [repr(option.name), option.name.upper(), *option.opts]
    return any(name in ran.err for name in shown) or Path(value).name[:100] in ran.err


def wrong_places(here: Path) -> dict[str, str]:
    (here / "loop.csv").symlink_to(here / "loop.csv")
    return {
        "missing": str(here / NAME),
        "missing folder": str(here / "nowhere" / NAME),
        "folder": str(here / "folder.csv"),
        "below a file": str(here / "paths.csv" / NAME),
        "link to itself": str(here / "loop.csv"),
        "too long": "x" * 5_000,
        "control characters": str(here / "a\x1b[31m\nb"),
        "no UTF-8": str(here / "a\udcffb"),
        "NUL": f"{here}/a\0b",
        "no name": "",
    }


@pytest.mark.parametrize(("case", "option"), READ, ids=name_of)
def test_a_file_that_cannot_be_read_is_named(case: Case, option: Any, here: Path) -> None:
    if case.path == ("collect", "keys", "new"):
        pytest.skip("makes the file")
    found: list[str] = []
    for what, value in wrong_places(here).items():
        ran = given(case, option, here, value)
        found += faults(ran, 1, 2, 78)
        is_fine = case.path == ("erase", "verify") and what == "folder"
        if (
            what not in {"control characters", "no UTF-8", "no name"}
            and not is_fine
            and not is_named(ran, option, value)
        ):
            found.append(f"{case.name} {option.name}: {what} is not named: {ran.err}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("case", "option"), READ, ids=name_of)
def test_a_file_that_may_not_be_read_is_named(case: Case, option: Any, here: Path) -> None:
    file = here / f"{NAME}.csv"
    file.write_text("path,total_conversions\na > b,3\n")
    given(case, option, here, str(file))  # loads what it needs, while it may
    file.chmod(0)
    with as_nobody():
        ran = given(case, option, here, str(file))
    if case.path != ("erase", "verify"):
        assert faults(ran, 2, 78) == []
        assert is_named(ran, option, str(file)), ran
        assert "Permission denied" in ran.err


@pytest.mark.parametrize(("case", "option"), READ, ids=name_of)
def test_a_file_of_wrong_content_is_named(case: Case, option: Any, here: Path) -> None:
    found: list[str] = []
    for what, content in CONTENTS.items():
        for ending in ENDINGS.get((case.name, option.name), ("",)):
            file = here / f"{NAME}_{what}{ending}"
            file.write_bytes(content)
            ran = given(case, option, here, str(file))
            if case.path in TAKES_ANY:
                found += faults(ran)
                continue
            is_taken = ran.code == 78 and any(name in ran.err for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP"))
            found += faults(ran, 0, 1, 2, 3, 78)
            # A mapping that says nothing is one, and the table is without columns then. Rows are told by themselves.
            is_taken |= ran.code == 3 or (option.name == "mapping" and what in {"empty", "null", "object"})
            if ran.code != 0 and not is_taken and not is_named(ran, option, str(file)):
                found.append(f"{case.name} {option.name}: {what} is not named: {ran.err}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("case", "option"), WRITES, ids=name_of)
def test_a_file_that_cannot_be_written_is_told(case: Case, option: Any, here: Path) -> None:
    found: list[str] = []
    for value in wrong_places(here).values():
        found += faults(given(case, option, here, value), 0, 2, 74, 78)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("what", "content"), CONTENTS.items(), ids=list(CONTENTS))
def test_whatever_a_file_holds_there_is_a_document_or_a_sentence(tmp_path: Path, what: str, content: bytes) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    said = ""
    try:
        read_yaml(file)
    except YamlFileError as error:
        said = str(error)
    assert said.startswith("is not YAML") or (not said and what in {
            "empty", "null", "list", "number", "object", "nan", "other_types", "open_quote", "ragged", "header_only",
    })  # fmt: skip


def test_a_mistake_in_yaml_is_told_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    for content, line in (
        (b"a: 1\nb: [\n", 3),
        (b"a: 1\nb: \xff\n", 2),
        (b"a: 1\n\nb: \x07\n", 3),
        (b"a: 1\nb\nc: 1\n", 3),
    ):
        file.write_bytes(content)
        with pytest.raises(YamlFileError, match=rf"line {line}\b"):
            read_yaml(file)
