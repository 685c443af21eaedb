"""A header that fits nothing is refused with the option under which it fits (B27, 24); the end says why (23)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.producers.importer.header import delimiter_of, read_above
from attributary.producers.importer.hints import near_column
from attributary.producers.importer.rows import FileError, SourceFile

NOON = "2024-06-01T12:00:00Z"
GOOD = f"user_id,occurred_at,value\nu1,{NOON},5\n"
OPTIONS = ("--kind", "conversion", "--constant", "conversion_type=purchase", "--constant", "currency=EUR", "--dry-run")


def produce(path: Path, content: str | bytes, *options: str, tenant: str = "acme") -> Result:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    named = ["--tenant", tenant] if tenant else []
    return CliRunner().invoke(app, ["produce", str(path), *OPTIONS, *named, *options])


@pytest.mark.parametrize(
    ("content", "options", "hint"),
    [
        (GOOD.replace(",", ";"), (), "with --delimiter ';' the columns fit"),
        (GOOD.replace(",", "\t"), (), "with --delimiter tab the columns fit"),
        (GOOD.replace(",", "|"), (), "with --delimiter '|' the columns fit"),
        ("Report of June\n\n" + GOOD, (), "with --skip-lines 1 the columns fit"),
        ("Report;June\n" + GOOD.replace(",", ";"), (), "with --skip-lines 1 --delimiter ';' the columns fit"),
        ("a,b\n" * 20 + GOOD, (), "with --skip-lines 20 the columns fit"),
        (
            GOOD.replace("occurred_at", "Occurred At"),
            (),
            "'Occurred At' looks like it: --map occurred_at=",
        ),
        (GOOD.replace("user_id", "USER_ID"), (), "'USER_ID' looks like it: --map user_id='USER_ID'"),
        (GOOD.replace("user_id", "userid"), (), "'userid' looks like it"),
        (GOOD.replace("user_id", "customer"), (), "name it: --map user_id=COLUMN; the file has customer, occurred_at"),
        (GOOD, ("--map", "order_id=Number"), "column Number: the file has no such column; it has user_id"),
        (GOOD.replace("value", "Total "), ("--map", "value=total"), "did you mean 'Total'?"),
        ("x\n" + GOOD, ("--map", "order_id=value"), "with --skip-lines 1 the columns fit"),
        ("id;name\n1;2\n", (), "the columns look separated by ';': --delimiter ';'"),
        ("Name;Created at;Total\n", ("--preset", "magento"), "has no column increment_id or ID"),
        ("ID;Purchase Date;Grand Total (Purchased)\n", ("--preset", "magento"), "with --delimiter ';' the columns fit"),
    ],
)
def test_b27_a_header_that_fits_nothing_is_refused_with_the_cure(
    tmp_path: Path, content: str, options: tuple[str, ...], hint: str
) -> None:
    result = produce(tmp_path / "orders.csv", content, *options)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stderr.startswith("attributary: orders.csv: ")
    assert not (tmp_path / "orders.csv.rejects.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("sep=;\n" + GOOD.replace(",", ";"), ()),
        ("\ufeffsep=;\r\n" + GOOD.replace(",", ";"), ()),
        ('"sep=;"\n' + GOOD.replace(",", ";"), ()),
        (GOOD.replace(",", ";"), ("--delimiter", "auto")),
        (GOOD.replace(",", "\t"), ("--delimiter", "tab")),
        (GOOD.replace(",", "\t"), ("--delimiter", "\\t")),
        ("Report\nof June\n" + GOOD, ("--skip-lines", "2")),
        (GOOD.encode("utf-16"), ()),
        (b"\xff\xfe" + GOOD.encode("utf-16-le"), ()),
        (GOOD.encode("utf-16-be"), ("--encoding", "utf-16-be")),
        ("Parameters:TimeZone=Europe/Berlin;x\n" + GOOD, ()),
    ],
)
def test_b27_what_says_itself_or_by_an_option_how_it_is_written_is_read(
    tmp_path: Path, content: str | bytes, options: tuple[str, ...]
) -> None:
    result = produce(tmp_path / "orders.csv", content, *options)
    assert result.exit_code == 0, result.output
    assert "1 rows: 1 could be published, 0 rejected" in result.stdout


def test_lines_above_the_header_are_counted(tmp_path: Path) -> None:
    result = produce(tmp_path / "orders.csv", "x\nsep=,\n" + GOOD + "u2,never,5\n", "--skip-lines", "1")
    assert "(first: orders.csv line 5: 'never')" in result.stdout


def test_the_zone_of_the_file_counts_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    text = "user_id,occurred_at,value\nu1,2024-06-01 12:00,5\n"
    path = tmp_path / "orders.csv"
    assert produce(path, "Parameters:TimeZone=Asia/Tokyo\n" + text).exit_code == 0
    assert produce(path, "Parameters:TimeZone=+0900\n" + text).exit_code == 2
    assert "has no time zone" in produce(path, text).stdout


def test_24_a_tenant_that_is_left_out_is_asked_for_before_the_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATTRIBUTION_TENANT", raising=False)
    result = produce(tmp_path / "orders.csv", GOOD, tenant="")
    assert (result.exit_code, result.stderr) == (
        2,
        "attributary: no tenant: name it with --tenant NAME, or set ATTRIBUTION_TENANT\n",
    )
    assert produce(tmp_path / "orders.csv", GOOD, "--constant", "tenant_id=acme", tenant="").exit_code == 0
    result = produce(tmp_path / "orders.csv", GOOD, tenant="Acme Inc")
    assert (result.exit_code, result.stderr.split(":")[:2]) == (2, ["attributary", " tenant"])
    rows = json.dumps({"user_id": "u1", "occurred_at": NOON, "value": 5}) + "\n"
    result = produce(tmp_path / "orders.jsonl", rows, tenant="")
    assert (result.exit_code, "name it with --tenant NAME" in result.stderr) == (3, True)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")
    assert produce(tmp_path / "orders.csv", GOOD, tenant="").exit_code == 0


def test_23_the_end_names_the_reasons_with_counts_and_a_first_line(tmp_path: Path) -> None:
    text = (
        f"user_id,when,sum,cur\nu1,{NOON},5,EUR\nu2,x\x1b[31m,5,EUR\nu3,y,5,EUR\nu4,{NOON},5,usd\nu5,{NOON},-5,EUR\n"
        f"u6,{NOON},6,EUR,more\nnull,{NOON},6,EUR\n"
    )
    options = ("--map", "occurred_at=when", "--map", "value=sum", "--map", "currency=cur")
    result = produce(tmp_path / "orders.csv", text, *options)
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[0] == "7 rows: 1 could be published, 6 rejected"
    assert lines[1].startswith("  2 x column when, occurred_at: must be a time in ISO 8601")
    assert lines[1].endswith("(first: orders.csv line 3: 'x\\x1b[31m')")
    assert "  1 x column cur, currency: must be an upper-case ISO 4217 code" in result.stdout
    assert "  1 x column sum, value: must not be negative" in result.stdout
    assert "  1 x has 5 columns, the header has 4 (first: orders.csv line 7)" in result.stdout
    assert "(first: orders.csv line 8)" in result.stdout, "a cell that may name a person is not shown"
    rejects = [json.loads(line) for line in (tmp_path / "orders.csv.rejects.jsonl").read_text().splitlines()]
    assert [(each["file"], each["line"], each["column"]) for each in rejects] == [
        ("orders.csv", 3, "when"), ("orders.csv", 4, "when"), ("orders.csv", 5, "cur"), ("orders.csv", 6, "sum"),
        ("orders.csv", 7, None), ("orders.csv", 8, "user_id"),
    ]  # fmt: skip


def test_b18_parts_of_items_and_files_that_break_off_are_named(tmp_path: Path) -> None:
    items = json.dumps([{"item_id": "s", "price": "9,99"}])
    row = json.dumps({"user_id": "u1", "occurred_at": NOON, "value": 5, "items": json.loads(items)})
    result = produce(tmp_path / "orders.jsonl", row + "\n")
    assert "items: price must be a number: use a point" in result.stdout
    result = produce(tmp_path / "orders.csv", (GOOD + "u2,é,1\n").encode("utf-16")[:-1])
    assert result.stderr.startswith("attributary: orders.csv: line 3: the rest cannot be read")
    assert "go on behind it with --skip" in result.stderr


def test_a_header_alone_and_no_line_at_all_are_said(tmp_path: Path) -> None:
    result = produce(tmp_path / "orders.csv", "user_id,occurred_at,value\n")
    assert (result.exit_code, "orders.csv has no rows below its header" in result.stderr) == (0, True)
    result = produce(tmp_path / "orders.jsonl", "\n\n")
    assert (result.exit_code, "orders.jsonl has no rows" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.jsonl", '[\n{"user_id": "u1"}\n]\n', "the file is one JSON array; write one object a line"),
        ("a.csv", '\ufeff{"user_id": "u1"}\n', "the file is JSON; name it .jsonl"),
        ("a.xlsx", "x", "save the table as CSV in UTF-8"),
        ("a.json", "[]", "name it .jsonl"),
        ("a.parquet", "x", "Parquet is read by analyze only"),
        ("a.csv.zip", "x", "unpack it first"),
        ("a.dat", "x", "name the format (--format)"),
    ],
)
def test_files_of_another_form_are_named_with_the_cure(tmp_path: Path, name: str, content: str, hint: str) -> None:
    result = produce(tmp_path / name, content)
    assert (result.exit_code, hint in result.stderr) == (2, True), result.stderr


def test_limits_and_skips_that_leave_nothing_are_said(tmp_path: Path) -> None:
    text = "n," + GOOD.replace("\n", "\n1,") + f"u1,{NOON},5\n"
    result = produce(tmp_path / "orders.csv", text, "--group-by", "n", "--limit", "1")
    assert "the first order of orders.csv has more rows than --limit" in result.stderr
    result = produce(tmp_path / "orders.csv", GOOD, "--skip", "7")
    assert "has no rows behind the 7 that --skip leaves out" in result.stderr


def test_s26_a_header_of_many_columns_does_not_fill_the_terminal(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(1_500))
    result = produce(tmp_path / "orders.csv", f"user_id,occurred_at,value,{names}\n")
    assert len(result.stderr) < 1_000
    assert "... (1,500 columns)" in result.stderr
    result = produce(tmp_path / "orders.csv", f"{names}\n")
    assert (result.exit_code, len(result.stderr) < 1_500) == (2, True)


@pytest.mark.parametrize(
    ("given", "expected"), [("tab", "\t"), ("\\t", "\t"), (";", ";"), ("auto", "auto"), (None, None)]
)
def test_names_of_separators(given: str | None, expected: str | None) -> None:
    assert delimiter_of(given) == expected


@pytest.mark.parametrize("given", ["::", "\n", '"', "tabs"])
def test_what_is_no_separator_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="one character, tab, or auto"):
        delimiter_of(given)


_WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)


@given(st.lists(_WORDS, min_size=2, max_size=5, unique=True), st.sampled_from(",;\t|"), st.booleans())
@settings(max_examples=100, deadline=None)
def test_auto_finds_the_separator_that_cuts_the_header_into_most_columns(
    names: list[str], mark: str, is_quoted: bool
) -> None:
    cells = [f'"{name}"' if is_quoted else name for name in names]
    lines = iter([mark.join(cells) + "\r\n"])
    assert read_above(lambda: next(lines, ""), "auto", ",", 0).delimiter == mark


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    table=st.lists(st.lists(_CELLS, min_size=3, max_size=3), min_size=1, max_size=5),
    mark=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    end=st.sampled_from(["\n", "\r\n"]),
    above=st.integers(0, 2),
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_quoted_comes_back_under_any_encoding_and_separator(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], mark: str, encoding: str, end: str, above: int
) -> None:
    def line(cells: list[str]) -> str:
        return mark.join('"' + cell.replace('"', '""') + '"' for cell in cells) + end

    path = tmp_path_factory.getbasetemp() / "quoted.csv"
    text = f"above{end}" * above + line(["a", "b", "c"]) + "".join(map(line, table))
    path.write_bytes(text.encode(encoding))
    with SourceFile(path, delimiter=mark, skip_lines=above) as source:
        found = [list(row.cells.values()) for row in source.rows()]
        assert source.columns == ("a", "b", "c")
    assert found == [cells for cells in table if any(cell.strip() for cell in cells)]


@given(st.binary(max_size=400), st.sampled_from([".csv", ".tsv", ".jsonl", ".avro", ".csv.gz"]))
@settings(max_examples=40, deadline=None)
def test_whatever_bytes_a_file_holds_it_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    result = produce(path, content)
    assert result.exit_code in {0, 2, 3}
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert all(letter.isprintable() or letter == "\n" for letter in result.output)
    with_name = result.exit_code != 2 or path.name in result.stderr
    assert with_name, result.stderr


def test_near_columns() -> None:
    assert near_column("occurred_at", ["id", "Occurred At"]) == "Occurred At"
    assert near_column("value", ["id", "colour"]) is None


def test_a_file_without_a_header_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("sep=;\n")
    with pytest.raises(FileError, match="the file is empty"):
        SourceFile(path)
