"""The check of the tree finds what it is there for."""

from __future__ import annotations

import pytest

from tests.checks.tree import bare_imports, forbidden_text, main


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import producers", ["producers"]),
        ("import schemas.codec as codec", ["schemas.codec"]),
        ("from consumers.store import migrate", ["consumers.store"]),
        ("def late():\n    from attribution_core import identity", ["attribution_core"]),
        ("from attributary.producers import client", []),
        ("from . import schemas", []),
        ("import producers_of_cheese", []),
    ],
)
def test_imports_by_bare_folder_names(source: str, found: list[str]) -> None:
    assert [name for _, name in bare_imports(source)] == found


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("see https://" + "pypi" + ".org/simple", False),
        ("resolved: https://registry" + ".npmjs.org/x", False),
        ("log in /ro" + "ot/x", False),
        ('path = "/ho' + 'me/ann/project"', False),
        ("https://shop.example/ho" + "me/sale/", True),
        ("the root of the tree", True),
    ],
)
def test_hosts_and_paths(line: str, clean: bool) -> None:
    assert (not list(forbidden_text(line))) == clean


@pytest.mark.slow
def test_this_tree_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out
