"""Write the Grafana dashboards: operations from the metric catalogue, marketing from SQL.

    python deploy/grafana/generate.py          writes deploy/grafana/dashboards/*.json
    python deploy/grafana/generate.py --check  exit code 1 when they are not up to date (part of `make check`)

Invariant: every metric of the catalogue has a panel, and no panel names a metric that is not in it.
"""  # noqa: INP001  # a script beside its output, not part of the package

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attributary.cli.metrics import all_metrics
from attributary.consumers.runtime.metrics import MetricDefinition

HERE = Path(__file__).parent
DASHBOARDS = HERE / "dashboards"
QUERIES = HERE / "marketing.sql"

PROMETHEUS = {"type": "prometheus", "uid": "attributary-prometheus"}
POSTGRES = {"type": "postgres", "uid": "attributary-postgres"}
WIDTH, HEIGHT = 8, 7
COLUMNS = 24 // WIDTH


def operations() -> dict[str, Any]:
    """One panel for every metric, in the order of the catalogue, which goes from the process to its stages."""
    panels = [_metric_panel(number, metric) for number, metric in enumerate(all_metrics())]
    return _dashboard("attributary-operations", "Attributary: operations", panels, "now-1h", "10s")


def marketing() -> dict[str, Any]:
    """One panel for every query of marketing.sql."""
    panels = [_sql_panel(number, *query) for number, query in enumerate(marketing_queries())]
    return _dashboard("attributary-marketing", "Attributary: marketing", panels, "now-30d", "1m")


def marketing_queries() -> Iterator[tuple[str, str, str]]:
    """Title, kind of panel and SQL of each query: blocks that begin with ``-- panel (kind): title``."""
    for block in QUERIES.read_text(encoding="utf-8").split("-- panel (")[1:]:
        head, _, query = block.partition("\n")
        kind, _, title = head.partition("): ")
        yield title, kind, query.strip()


def _metric_panel(number: int, metric: MetricDefinition) -> dict[str, Any]:
    targets = [
        {"datasource": PROMETHEUS, "expr": expression, "legendFormat": legend, "refId": chr(ord("A") + index)}
        for index, (expression, legend) in enumerate(_expressions(metric))
    ]
    unit = "s" if "seconds" in metric.name else "ops" if metric.kind == "counter" else "short"
    return {
        **_place(number),
        "type": "timeseries",
        "title": metric.name.removeprefix("attribution_").removesuffix("_total").replace("_", " "),
        "description": metric.help,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _expressions(metric: MetricDefinition) -> Iterator[tuple[str, str]]:
    labels = ", ".join(metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "all"
    if metric.kind == "counter":
        yield f"sum by ({labels}) (rate({metric.name}[$__rate_interval]))", legend
    elif metric.kind == "gauge":
        yield f"max by ({labels}) ({metric.name})", legend
    else:
        by = ", ".join(("le", *metric.labels))
        for quantile in (0.5, 0.95, 0.99):
            rate = f"sum by ({by}) (rate({metric.name}_bucket[$__rate_interval]))"
            yield f"histogram_quantile({quantile}, {rate})", f"p{quantile * 100:.0f} {legend}"


def _sql_panel(number: int, title: str, kind: str, query: str) -> dict[str, Any]:
    chart = kind == "timeseries"
    target = {
        "datasource": POSTGRES,
        "rawQuery": True,
        "editorMode": "code",
        "format": "time_series" if chart else "table",
        "rawSql": query,
        "refId": "A",
    }
    return {
        **_place(number, width=12, height=9),
        "type": kind,
        "title": title,
        "datasource": POSTGRES,
        "targets": [target],
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {},
    }


def _place(number: int, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    row, column = divmod(number, 24 // width)
    return {"id": number + 1, "gridPos": {"h": height, "w": width, "x": column * width, "y": row * height}}


def _dashboard(uid: str, title: str, panels: list[dict[str, Any]], since: str, refresh: str) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["attributary"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "timezone": "utc",
        "panels": panels,
        "templating": {"list": []},
        "annotations": {"list": []},
    }


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; returns the exit code."""
    stale = []
    for name, dashboard in (("operations", operations()), ("marketing", marketing())):
        file = DASHBOARDS / f"{name}.json"
        text = json.dumps(dashboard, indent=1) + "\n"
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            stale.append(file.name)
        else:
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.stdout.write(f"not up to date: {', '.join(stale)}; run python deploy/grafana/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
