"""Attribution models as a library: pure functions of journeys. Numpy only; no input, output, clock or logging.

    from attributary.attribution_core import analyze
    result = analyze({"path": ["search > mail", "mail"], "total_conversions": [3, 1], "total_null": [5, 9]})
    print(result)

See ``docs/models.md`` for which model answers which question. Names are imported when they are first asked for, so
that parts of the package stay as light as they are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.analyze import analyze
    from attributary.attribution_core.tables.events import read_events
    from attributary.attribution_core.tables.paths import read_paths

__all__ = ["analyze", "read_events", "read_paths"]

_HOMES = {"analyze": "analysis.analyze", "read_events": "tables.events", "read_paths": "tables.paths"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
