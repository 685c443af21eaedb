"""Our hashes beside those of Meta's official SDK: equal, or different for a reason in docs/how-to/forward.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attributary.producers.matching import meta

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((Path(__file__).parent / "golden" / "meta_sdk.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = DOCUMENT["cases"]
REASONS = {case["why"] for case in CASES if case["why"]}


def test_the_oracle_had_much_to_say() -> None:
    assert DOCUMENT["sdk"].startswith("facebook-business ")
    assert len(CASES) > 200
    assert {case["key"] for case in CASES} == set(meta.HASHED_KEYS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['key']}-{CASES.index(case)}")
def test_hashes_are_the_sdks_or_differ_on_purpose(case: dict[str, Any]) -> None:
    ours = meta.hashed(case["key"], case["value"])
    assert ours == case["ours"]
    if case["why"] is None:
        assert ours == case["sdk"]
    elif case["why"] == "refused-alike":
        assert case["sdk"] in {"TypeError", "ValueError"}
        assert ours == ""
    else:
        assert ours != case["sdk"]


def test_every_difference_is_explained_in_the_documentation() -> None:
    text = (ROOT / "docs" / "how-to" / "forward.md").read_text("utf-8")
    assert [reason for reason in sorted(REASONS) if f"`{reason}`" not in text] == []
