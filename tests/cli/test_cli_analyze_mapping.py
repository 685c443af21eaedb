"""`attributary analyze` takes tables with names and forms of their own, as `attributary produce` does (finding 25)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from attributary.cli.main import app

RUNNER = CliRunner()
EXPORTS = Path(__file__).resolve().parents[1] / "fixtures" / "exports"
PLAIN = (
    "user,time,channel,conversion,value\n"
    "u1,2026-11-01T09:00:00+00:00,search,,\n"
    "u1,2026-11-02T09:00:00+00:00,mail,,\n"
    "u1,2026-11-03T09:00:00+00:00,,yes,1249.50\n"
    "u2,2026-11-04T09:00:00+00:00,search,,\n"
)
OWN = (
    "customer_id;visit_time;source;bought;amount\n"
    "u1;01.11.2026 10:00;search;;\n"
    "u1;02.11.2026 10:00;mail;;\n"
    "u1;03.11.2026 10:00;;yes;1.249,50\n"
    "u2;04.11.2026 10:00;search;;\n"
)
OWN_OPTIONS = (
    "--map", "user=customer_id", "--map", "time=visit_time", "--map", "channel=source", "--map", "conversion=bought",
    "--map", "value=amount", "--delimiter", ";", "--time-format", "%d.%m.%Y %H:%M", "--timezone", "Europe/Berlin",
    "--decimal-comma", "--thousands", ".",
)  # fmt: skip


def run(path: Path, content: str | bytes, *options: str) -> Result:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RUNNER.invoke(app, ["analyze", str(path), "--model", "linear", "--format", "json", *options])


def numbers(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["channels"]


def test_own_names_separators_times_and_amounts_give_the_same_numbers(tmp_path: Path) -> None:
    assert numbers(run(tmp_path / "own.csv", OWN, *OWN_OPTIONS)) == numbers(run(tmp_path / "plain.csv", PLAIN))


def test_a_mapping_file_of_produce_serves_too(tmp_path: Path) -> None:
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "kind: touchpoint\ntenant: acme\ndelimiter: ';'\ntime_format: '%d.%m.%Y %H:%M'\ntimezone: Europe/Berlin\n"
        "decimal_comma: true\nthousands: '.'\nmap: {user_id: customer_id, occurred_at: visit_time, channel: source, "
        "conversion: bought, value: amount, campaign_id: source}\n"
    )
    result = run(tmp_path / "own.csv", OWN, "--mapping", str(mapping))
    assert numbers(result) == numbers(run(tmp_path / "plain.csv", PLAIN))
    assert "parts of the mapping without a place here: campaign_id" in result.stderr


def test_paths_with_own_names_and_filters(tmp_path: Path) -> None:
    text = "Report of November\n\nPfad\tErfolge\tLand\na > b\t1.000\tDE\nb\t500\tDE\na\t7\tUS\n"
    result = run(tmp_path / "p.csv", text, "--skip-lines", "2", "--delimiter", "tab", "--map", "path=Pfad", "--map",
                 "total_conversions=Erfolge", "--thousands", ".", "--decimal-comma", "--where", "Land=de")  # fmt: skip
    plain = run(tmp_path / "q.csv", "path,total_conversions\na > b,1000\nb,500\n")
    assert numbers(result) == numbers(plain)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "latin-1"])
def test_an_encoding_can_be_named(tmp_path: Path, encoding: str) -> None:
    text = "path,total_conversions\ncafé > b,10\n"
    result = run(tmp_path / "p.csv", text.encode(encoding), "--encoding", encoding)
    assert [row["channel"] for row in numbers(result)] == ["b", "café"]


def test_the_separator_of_excel_is_read_and_lines_stay_right(tmp_path: Path) -> None:
    result = run(tmp_path / "p.csv", "sep=;\npath;total_conversions\na;1\nb;x\n")
    assert "line 4: total_conversions: 'x' must be" in result.stderr


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--map", "customer=x"), "customer: analyze has no such column; it has path, total_conversions"),
        (("--map", "user=nobody"), "column nobody: the file has no such column; there are user, time, channel"),
        (("--where", "Land=DE"), "column Land: the file has no such column"),
        (("--where", "Land"), "expected COLUMN=VALUE"),
        (("--time-format", "%Q"), "time format: must be"),
        (("--time-format", "%d.%m.%Y"), "line 2: time: '2026-11-01T09:00:00+00:00' must be a time in the format"),
        (("--timezone", "Mars/Base"), "timezone Mars/Base"),
        (("--decimal-comma",), "line 4: value: '1249.50' must be a number with a decimal comma and no points"),
        (("--thousands", "."), "thousands: . is the decimal mark"),
        (("--delimiter", "::"), "the delimiter must be one character"),
        (("--encoding", "klingon"), "the encoding klingon is not known"),
        (("--mapping", "/nowhere/m.yaml"), "m.yaml: No such file"),
        (("--preset", "shopify"), "that export has no visits beside its conversions; analyze takes ga4"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, options: tuple[str, ...], rule: str) -> None:
    result = run(tmp_path / "p.csv", PLAIN, *options)
    assert result.exit_code == 2
    assert rule in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_preset_reads_visits_and_purchases_of_ga4() -> None:
    result = RUNNER.invoke(
        app, ["analyze", str(EXPORTS / "ga4-events.jsonl"), "--preset", "ga4", "--model", "last", "--format", "json"]
    )
    assert [(row["channel"], row["conversions"]) for row in numbers(result)] == [("paid_search", 1.0)]
    diagnostics = json.loads(result.stdout)["diagnostics"]
    assert (diagnostics["conversions"], diagnostics["value"]) == (2, 86.4)


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters='\r\n\0"'), min_size=1, max_size=8).filter(str.strip)


@given(
    names=st.lists(_NAMES.map(str.strip).filter(bool), min_size=2, max_size=2, unique=True),
    delimiter=st.sampled_from([",", ";", "|", "tab"]),
    above=st.integers(0, 3),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_any_header_separator_and_encoding_gives_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], delimiter: str, above: int, encoding: str,
    counts: list[int],
) -> None:  # fmt: skip
    mark = "\t" if delimiter == "tab" else delimiter
    if any(mark in name for name in names) or any("=" in name for name in names):
        return
    rows = "".join(f"c{place}{mark}{count}\n" for place, count in enumerate(counts))
    text = "above\n" * above + f"{mark.join(names)}\n{rows}"
    path = tmp_path_factory.getbasetemp() / "any.csv"
    options = ["--map", f"path={names[0]}", "--map", f"total_conversions={names[1]}", "--delimiter", delimiter,
               "--skip-lines", str(above), "--encoding", encoding]  # fmt: skip
    result = run(path, text.encode(encoding), *options)
    plain = run(path, "path,total_conversions\n" + "".join(f"c{n},{count}\n" for n, count in enumerate(counts)))
    if sum(counts):
        assert numbers(result) == numbers(plain)
    else:
        assert result.exit_code == plain.exit_code
    assert "\x1b" not in result.output
