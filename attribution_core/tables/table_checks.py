"""What can be read and looks like a slip: notes on the names, users, times and rows of a table.

Invariant: a note changes no number, except that users who name nobody are never joined (`unnamed_users`). Notes name
rows and channels; the id of a user is never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher
from unicodedata import normalize

import numpy as np

from attributary.attribution_core.domain.identity_rules import normalized_id, placeholder
from attributary.attribution_core.domain.journeys import DIRECT, Ints, JourneyBatch, Outcomes, is_direct
from attributary.attribution_core.tables.cells import quoted

_LISTED = 5  # names in a note
_NEAR = 0.8  # likeness of a word to "direct": directo, dirct
_ARROWS = (">", "&gt;", "→", "⇒", "➔", "➜", "⟶", "»", "›")  # noqa: RUF001  # these are the marks that people use
_JOINTS = ("|", ";", ",", "/", "\\", "::", "~", " - ", " – ", " — ", " + ", "·", "•", ":")  # noqa: RUF001  # dashes of word processors
# GA joins source and medium by " / ": google / organic is one channel, and so are its neighbours in such a table.
_MEDIUMS = frozenset({"organic", "cpc", "ppc", "cpm", "cpv", "cpa", "referral", "none", "not set"})
_STARTS = frozenset({"start", "begin", "entrance", "entry", "source"})
_ENDS = frozenset({"conversion", "conversions", "converted", "null", "end", "exit", "dropoff", "noconversion"})
_MISSING = frozenset({"null", "nan", "none", "nil", "na", "undefined", "unknown", "n/a", "<na>", "\\n", "nat", "#n/a"})
_TOTALS = frozenset(
    {
        "total", "totals", "grand total", "overall total", "subtotal", "sub total", "sum", "summe", "gesamt",
        "gesamtsumme", "gesamtergebnis", "insgesamt", "total general", "total général", "totale", "totaal", "suma",
        "итого", "всего", "合计", "总计", "合計", "総計", "all channels", "all",
    }
)  # fmt: skip
_YEAR = 31_556_952 * 1_000_000
_FAR = 5 * _YEAR  # from the median: no window of journeys is that wide
_DIRECT_BEGINNINGS = ("direct", "direkt")
_NOT_NEAR = re.compile(r"mail|post|marketing|respon|buy|sale|director|directv|directions?$|indirect|redirect")


def path_notes(batch: JourneyBatch, outcomes: Outcomes, separator: str) -> tuple[str, ...]:
    """Return notes on the paths of a table: other separators, reserved tokens, totals, and `channel_notes`."""
    return (
        *_separator_notes(batch, separator),
        *_token_notes(batch),
        *_total_notes(batch, outcomes),
        *channel_notes(batch.index.names),
    )


def channel_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Return notes on channels that are probably one (written in several ways) or none (names for a missing value)."""
    notes = []
    if alike := _alike(names):
        listed = "; ".join(", ".join(map(quoted, group)) for group in alike[:_LISTED])
        notes.append(f"channels that differ only in case, blanks or hyphens stay apart: {listed}{_more(alike)}")
    if missing := [name for name in names if name.casefold() in _MISSING]:
        notes.append(f"channels that look like missing values: {_quoted(missing)}")
    return tuple(notes)


def direct_notes(names: Sequence[str], *, asked: bool) -> tuple[str, ...]:
    """Return a note for `last_non_direct`: which other spellings count as direct, or that no channel does.

    Args:
        names: of the channels.
        asked: whether the model was asked for by name: then a table without direct is said, too.
    """
    if known := [name for name in names if is_direct(name)]:
        if known == [DIRECT]:
            return ()
        return (f"channels that count as direct: {', '.join(known[:_LISTED])}{_more(known)}",)
    near = next((name for name in names if _near_direct(name)), None)
    if near is None and not asked:
        return ()
    hint = "" if near is None else f"; did you mean {near}? Rename it to {DIRECT}"
    return (f"last_non_direct equals last: no channel counts as direct{hint}",)


def time_notes(times: Sequence[int]) -> tuple[str, ...]:
    """Return a note on times far from the others, or all before 1990: a number is seconds since 1970."""
    if not times:
        return ()
    micros = np.array(times, dtype=np.int64)
    if int(micros.max()) < 631_152_000 * 1_000_000:
        return ("all times are before 1990: a number is seconds since 1970-01-01 UTC",)
    middle = int(np.median(micros))
    far = np.flatnonzero(np.abs(micros - middle) > _FAR)
    if not far.size:
        return ()
    row = int(far[0])
    said = f"times more than five years from most others ({_day(middle)}): {far.size:,}"
    return (f"{said}, the first in row {row + 1} ({_day(times[row])})",)


class Users:
    """The users of an event table: normalised, and without those that name nobody.

    Attributes:
        names: the user of each row in the form in which ids are compared (`normalized_id`); None where it names nobody.
        notes: on users that name nobody, or are written in more than one way.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        forms = {text: normalized_id(text) for text in set(texts)}
        unnamed = {text: rule for text in forms if text and (rule := placeholder(text)) is not None}
        self.names = [None if text in unnamed else forms[text] for text in texts]
        self.notes = (*_unnamed_notes(texts, unnamed), *_spelling_notes(texts, forms, unnamed))


def _unnamed_notes(texts: Sequence[str], unnamed: dict[str, str]) -> Iterable[str]:
    if not unnamed:
        return
    rows = [row for row, text in enumerate(texts, start=1) if text in unnamed]
    rule = unnamed[texts[rows[0] - 1]]
    yield (
        f"rows with a user that names nobody: {len(rows):,}, the first is row {rows[0]} (user: {rule}); they are not "
        "joined: a conversion stands alone, a touch without one is left out"
    )


def _spelling_notes(texts: Sequence[str], forms: dict[str, str], unnamed: Collection[str]) -> Iterable[str]:
    first_row: dict[str, int] = {}
    for row, text in enumerate(texts, start=1):
        if text not in unnamed:
            first_row.setdefault(text, row)
    first_form: dict[str, int] = {}
    for text, row in first_row.items():
        first_form.setdefault(forms[text], row)
    by_form = [(forms[text], row) for text, row in first_row.items()]
    yield from _several("users written in more than one way count as one", by_form)
    yield from _several("users that differ only in case stay apart", [(f.casefold(), n) for f, n in first_form.items()])


def _several(said: str, keyed: Iterable[tuple[str, int]]) -> Iterable[str]:
    """Say how many keys stand in several rows, each the first of its spelling."""
    rows: dict[str, list[int]] = {}
    for key, row in keyed:
        rows.setdefault(key, []).append(row)
    if several := [group for group in rows.values() if len(group) > 1]:
        yield f"{said}: {len(several):,}, such as rows {several[0][0]} and {several[0][1]}"


def _separator_notes(batch: JourneyBatch, separator: str) -> Iterable[str]:
    names = batch.index.names
    marks: tuple[str, ...] = _ARROWS if int(batch.lengths.max(initial=0)) > 1 else (*_ARROWS, *_JOINTS)
    odd = next((name for name in names if _is_list(name)), None)
    if odd is not None:
        yield f"{quoted(odd)} counts as one channel and looks like a list: join its channels by {separator!r}"
        return
    if any(map(_is_source_medium, names)):
        marks = tuple(mark for mark in marks if mark != "/")
    odd = next((name for name in names if any(mark in name for mark in marks)), None)
    if odd is not None:
        yield f"{quoted(odd)} counts as one channel: the channels of a path are joined by {separator!r}"


def _is_list(name: str) -> bool:
    return name[0] + name[-1] in {"[]", "{}"} and any(mark in name for mark in ",\"'")


def _is_source_medium(name: str) -> bool:
    parts = [part.strip(" ()").casefold() for part in name.split("/")]
    return len(parts) == 2 and parts[1] in _MEDIUMS


def _token_notes(batch: JourneyBatch) -> Iterable[str]:
    """Find the tokens of other tools for the start and the end of a journey, which count as channels here."""
    found = []
    filled = batch.lengths > 0
    first, last = batch.offsets[:-1][filled], batch.offsets[1:][filled] - 1
    for code, name in enumerate(batch.index.names):
        word = name.strip("()[]<>{}_$^ ").casefold()
        for words, places in ((_STARTS, first), (_ENDS, last)):
            if word not in words:
                continue
            wrapped = name[0] in "([<{^_$"
            if wrapped or (int(batch.lengths.max()) > 1 and _only_at(batch, code, places)):
                found.append(name)
    if found:
        yield f"{_quoted(found)} counts as a channel: leave tokens for start, conversion and null out of the paths"


def _only_at(batch: JourneyBatch, code: int, places: Ints) -> bool:
    touches = np.flatnonzero(batch.channels == code)
    return bool(np.isin(touches, places).all())


def _total_notes(batch: JourneyBatch, outcomes: Outcomes) -> Iterable[str]:
    """Find a row that sums up the others: every number would count twice."""
    named = [code for code, name in enumerate(batch.index.names) if name.casefold() in _TOTALS]
    single = np.flatnonzero(batch.lengths == 1)
    rows = single[np.isin(batch.channels[batch.offsets[:-1][single]], named)]
    if rows.size:
        name = batch.index.names[int(batch.channels[batch.offsets[int(rows[0])]])]
        yield f"row {int(rows[0]) + 1}: {quoted(name)} counts as a channel; a row of totals counts everything twice"
        return
    counted = outcomes.conversions, outcomes.nulls, outcomes.value_micros
    for row in {0, len(batch) - 1} if len(batch) > 3 else ():
        if int(outcomes.conversions[row]) and all(2 * int(part[row]) == sum(part.tolist()) for part in counted):
            yield f"row {row + 1} equals the sum of all other rows; a row of totals counts everything twice"


def _alike(names: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[\s_-]+", "", normalize("NFKC", name).casefold()), []).append(name)
    return [group for key, group in groups.items() if key and len(group) > 1]


def _near_direct(name: str) -> bool:
    words = re.findall(r"[^\W_]+", normalize("NFKC", name).casefold())
    if _NOT_NEAR.search("".join(words)):
        return False
    return any(
        word.startswith(_DIRECT_BEGINNINGS) or SequenceMatcher(None, word, DIRECT).ratio() > _NEAR for word in words
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:_LISTED])) + _more(names)


def _more(names: Sequence[object]) -> str:
    return f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""


def _day(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).date().isoformat()
