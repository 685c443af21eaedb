"""What stands above the header of a CSV file, and what separates its columns.

Contract: lines that speak for themselves are read and left out: ``sep=;`` of Excel names the separator, and
``Parameters:TimeZone=...`` of Google Ads the zone of the times. Any other line above the header is left out only when
asked (``skip_lines``). ``delimiter`` ``auto`` takes the separator that cuts the header into most columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import NamedTuple

AUTO = "auto"
SEPARATORS = ",;\t|"

_NAMES = {"tab": "\t", "\\t": "\t", "semicolon": ";", "comma": ",", "pipe": "|", "space": " "}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_PARAMETERS = "parameters:"
_TIMEZONE = re.compile(r"timezone\s*=\s*([^;,\s\"]+)", re.IGNORECASE)


class Above(NamedTuple):
    """What was read before the header."""

    delimiter: str
    lines: int  # how many were left out
    first: str  # the line that was read and belongs to the header; empty at the end of the file
    timezone: str | None  # the zone that the file names


def delimiter_of(given: str | None) -> str | None:
    """Return the separator that an option names: one character, ``tab``, ``auto``, ...; None when it names none.

    Raises:
        ValueError: it is something else.
    """
    if not given:
        return None
    found = _NAMES.get(given.lower(), given)
    if found.lower() == AUTO:
        return AUTO
    if len(found) != 1 or found in '\r\n"':
        raise ValueError("the delimiter must be one character, tab, or auto")
    return found


def read_above(read_line: Callable[[], str], delimiter: str | None, usual: str, skip_lines: int) -> Above:
    """Read up to the header.

    Args:
        read_line: gives the next line, empty at the end of the file.
        delimiter: as ``delimiter_of`` returns it.
        usual: the separator where nobody says another.
        skip_lines: how many lines to leave out first.
    """
    lines = 0
    timezone = None
    while lines < skip_lines and (left_out := read_line()):  # a file may be shorter
        timezone = _zone(left_out) or timezone
        lines += 1
    while True:
        first = read_line()
        bare = first.strip().lstrip("\ufeff")
        if named := _SEPARATOR_LINE.fullmatch(bare.rstrip(",;")) or _SEPARATOR_LINE.fullmatch(bare):
            delimiter = delimiter if delimiter not in {None, AUTO} else named[1]
        elif bare.lower().lstrip('"').startswith(_PARAMETERS):
            timezone = _zone(bare) or timezone
        else:
            break
        lines += 1
    if delimiter == AUTO:
        delimiter = max(SEPARATORS, key=lambda mark: columns_of(first, mark))
    return Above(delimiter or usual, lines, first, timezone)


def columns_of(line: str, delimiter: str) -> int:
    """Return how many columns a separator cuts a line into."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


def _zone(line: str) -> str | None:
    found = _TIMEZONE.search(line) if line.strip().lstrip('\ufeff"').lower().startswith(_PARAMETERS) else None
    return found[1] if found else None
