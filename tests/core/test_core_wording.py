"""Models claim association: no text for users or maintainers says what a channel caused, save the simulator's truth."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLAIM = re.compile(
    r"(come|came) anyway|would lose|names? causes|brought by (no|a|the) channel|channels? (brings?|brought)|"
    r"channel add to|channel contributed|without effect",
    re.IGNORECASE,
)


def test_no_text_claims_a_cause() -> None:
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for folder in ("attribution_core", "consumers", "src/attributary/cli", "deploy/grafana"):
        texts += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sql")]
    texts += (ROOT / "schemas").glob("*.avsc")
    assert len(texts) > 100
    found = [
        f"{path.relative_to(ROOT)}: {claim.group()}"
        for path in texts
        # one claim may reach over the end of a line
        for claim in CLAIM.finditer(" ".join(path.read_text(encoding="utf-8").split()))
    ]
    assert found == []
