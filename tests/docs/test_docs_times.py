"""The page about times says what the grammar takes."""

from __future__ import annotations

import re
from pathlib import Path

from attributary.attribution_core.domain import time_grammar

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "times.md").read_text("utf-8")
NOW = 1_795_000_000_000_000


def test_every_form_of_the_page_is_one_of_the_grammar() -> None:
    table = PAGE.partition("| you write |")[2].partition("\n\n")[0]
    forms = [form for line in table.splitlines()[2:] for form in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert len(forms) == 14
    for form in forms:
        assert time_grammar.BEGINNING <= time_grammar.parse_time(form, NOW) <= time_grammar.END, form
    named = re.findall(r"``([^`.\n]+?)``(?=[, ])", (time_grammar.__doc__ or "").partition("Invariant")[0])
    assert named[0] == forms[0]
    assert set(named) - {", "} <= set(forms)
