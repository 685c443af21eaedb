"""The options that say how a file is read: the same in every command that takes one.

Contract: ``command_line`` returns them as ``producers.importer.open_file`` takes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Kind = Literal["touchpoint", "conversion", "identity_link"]
FileFormat = Literal["csv", "tsv", "jsonl", "avro"]
Preset = Literal["shopify", "woocommerce", "magento", "ga4", "google-ads", "meta-ads"]

MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="our_field=their_column; may be repeated. See docs/how-to/publish.md."),
]
ConstantOption = Annotated[
    list[str] | None, typer.Option("--constant", help="our_field=text for rows that have no value; may be repeated.")
]
MappingOption = Annotated[Path | None, typer.Option("--mapping", help="YAML file with map, constant, time_format, ...")]
PresetOption = Annotated[
    Preset | None, typer.Option("--preset", help="Mapping of a known export; the other options go before it.")
]
TimeFormatOption = Annotated[
    str | None,
    typer.Option("--time-format", help="iso, s, ms, us (since 1970), or a pattern: '%d.%m.%Y %H:%M'. Default: iso."),
]
TimezoneOption = Annotated[
    str | None, typer.Option("--timezone", help="Zone of times that name none, e.g. Europe/Berlin.")
]
DecimalCommaOption = Annotated[bool, typer.Option("--decimal-comma", help="Amounts are written 19,99.")]
ThousandsOption = Annotated[
    str | None,
    typer.Option("--thousands", help="Separator of thousands in amounts: a comma, a point, an apostrophe, or: space."),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="COLUMN=VALUE or COLUMN!=VALUE: rows that count. May be repeated."),
]
GroupByOption = Annotated[
    str | None,
    typer.Option("--group-by", help="Column of the order number: adjacent rows with one number are one conversion."),
]
FormatOption = Annotated[FileFormat | None, typer.Option("--format", help="Default: by the file's name.")]
DelimiterOption = Annotated[
    str | None, typer.Option("--delimiter", help="Between the cells of CSV: a character, tab, auto. Default: comma.")
]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Of CSV and JSON lines, e.g. cp1252. Default: by its byte order mark, else UTF-8."),
]
SkipLinesOption = Annotated[
    int, typer.Option("--skip-lines", min=0, help="Lines above the header of CSV to leave out.")
]


def command_line(map_: list[str] | None, **others: Any) -> dict[str, Any]:
    """Return options by the names of a mapping file."""
    return {"map": map_, **others}
