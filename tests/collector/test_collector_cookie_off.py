"""COLLECT_COOKIE=off: no first-party cookie is set, and none is read."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from attributary.cli.collect_settings import CollectSettings
from attributary.producers.collector.visits import _COOKIE_VERSION, read_cookie

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("text", "name"), [("off", ""), ("_shop", "_shop")])
def test_off_means_no_cookie(tmp_path: Path, text: str, name: str) -> None:
    settings = CollectSettings.model_validate(
        {"COLLECT_KEYS_FILE": tmp_path / "keys", "COLLECT_SPOOL": "off", "COLLECT_COOKIE": text}
    )
    assert settings.config().cookie_name == name


def test_a_nameless_cookie_is_not_taken_for_ours_when_there_is_none() -> None:
    value = f"{_COOKIE_VERSION}{uuid.uuid4()}"
    assert read_cookie([f"={value}; {value}"], "") is None
    assert read_cookie([f"_atb={value}"], "_atb") == value.removeprefix(_COOKIE_VERSION)
