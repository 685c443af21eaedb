from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import attributary.attribution_core as core

ROOT = Path(__file__).parents[2]


def test_the_examples_of_the_page_on_models_do_what_they_show() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 9
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        example = parser.get_doctest(block, names, f"models.md, block {number}", None, 0)
        assert example.examples, block
        runner.run(example, clear_globs=False)
        names.update(example.globs)
    assert runner.summarize(verbose=False).failed == 0


def test_the_package_offers_its_three_names_only() -> None:
    for name in core.__all__:
        assert callable(getattr(core, name))
    with pytest.raises(AttributeError, match="no attribute 'best'"):
        core.best  # noqa: B018  # looking it up is the test
