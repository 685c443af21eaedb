"""Write the Grafana dashboards: operations from the metric catalogue, marketing from SQL.

    python deploy/grafana/generate.py          writes deploy/grafana/dashboards/*.json
    python deploy/grafana/generate.py --check  exit code 1 when they are not up to date (part of `make check`)

Invariant: every metric of the catalogue has a panel, and no panel names a metric that is not in it. What a promise, lag
or latency says stands first; every panel has a unit and a description.
"""  # noqa: INP001  # a script beside its output, not part of the package

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attributary.cli.metrics import all_metrics
from attributary.consumers.runtime.metrics import MetricDefinition

HERE = Path(__file__).parent
DASHBOARDS = HERE / "dashboards"
QUERIES = HERE / "marketing.sql"

PROMETHEUS = {"type": "prometheus", "uid": "attributary-prometheus"}
POSTGRES = {"type": "postgres", "uid": "attributary-postgres"}
FILTER = 'process=~"$process", instance=~"$instance"'

# Metrics of the first two rows, with the values at which their colour turns yellow and red; the others by their names.
PROMISES = {
    "attribution_credit_imbalance_total": (1, 1),
    "attribution_result_conflicts_total": (1, 1),
    "attribution_versions_out_of_order_total": (1, 1),
    "attribution_oldest_unobserved_seconds": (60, 300),
    "attribution_finalising_held": (1, 1),
    "attribution_over_refunded_total": (1, 10),
}
LATENCY = {
    "attribution_oldest_unread_input_seconds": (60, 300),
    "attribution_consumer_lag_records": (5_000, 50_000),
    "attribution_stalled_seconds": (60, 180),
    "attribution_end_to_end_latency_seconds": (5, 60),
    "attribution_forward_oldest_pending_seconds": (600, 3_600),
    "attribution_dlq_records_total": (1, 1),
}
_EVENTS = "event|conversion|order|version|identity|touchpoint|result|command|journey|people|unobserved"
AREAS = (
    ("Forwarding", "attribution_forward_"),
    ("Training and jobs", "attribution_(job|waiting_job|running_job|oldest_(waiting|running)_job|training|model)s?_"),
    ("Collector", "attribution_collector_"),
    ("Events and results", f"attribution_({_EVENTS})"),
    ("Processes", ""),
)
_PANEL = re.compile(
    r"-- panel \((?P<kind>\w+), (?P<unit>\w+), (?P<width>\d+)x(?P<height>\d+)\): (?P<title>.*)\n"
    r"-- about: (?P<about>.*)\n(?:-- thresholds: (?P<yellow>\S+) (?P<red>\S+)\n)?(?P<sql>[^;]*;)"
)
_MATRIX = re.compile(r"SELECT \w+ AS (\w+), (\w+), .* AS (\w+)\n")


class Query(NamedTuple):
    """A panel of marketing.sql; `kind` row begins a row and has a title only."""

    kind: str
    title: str
    unit: str = ""
    size: tuple[int, int] = (24, 1)
    about: str = ""
    thresholds: tuple[float, float] | None = None
    sql: str = ""


def operations() -> dict[str, Any]:
    """Promises, then lag and latency, then every other metric by area."""
    metrics = {metric.name: metric for metric in all_metrics()}
    page = _Page()
    page.row("Promises: each must stay green")
    for name, limits in PROMISES.items():
        page.add(_stat(metrics.pop(name), limits), 4, 4)
    page.row("Lag, latency, dead letters")
    for name, limits in LATENCY.items():
        page.add(_series(metrics.pop(name), limits), 8, 7)
    for title, prefix in AREAS:
        chosen = [name for name in metrics if re.match(prefix, name)]
        page.row(title, [_series(metrics.pop(name)) for name in chosen])
    variables = [
        _variable("process", "Process", PROMETHEUS, 'label_values(up{job=~"attributary.*"}, process)', several=True),
        _variable(
            "instance", "Instance", PROMETHEUS,
            'label_values(up{job=~"attributary.*", process=~"$process"}, instance)', several=True,
        ),
    ]  # fmt: skip
    return _dashboard("attributary-operations", "Attributary: operations", page.panels, variables, ("now-1h", "10s"))


def marketing() -> dict[str, Any]:
    """One panel for every query of marketing.sql."""
    page = _Page()
    for query in marketing_queries():
        if query.kind == "row":
            page.row(query.title)
        else:
            page.add(_sql_panel(query), *query.size)
    of_tenant = (
        "FROM reporting.daily_conversions WHERE tenant_id = ${tenant:sqlstring} "
        "GROUP BY 1 ORDER BY sum(conversions) DESC"
    )
    models = "SELECT unnest(models) FROM reporting.rollups WHERE tenant_id = ${tenant:sqlstring} ORDER BY 1"
    variables = [
        _variable("tenant", "Tenant", POSTGRES, "SELECT tenant_id FROM reporting.rollups ORDER BY 1"),
        _variable("currency", "Currency", POSTGRES, f"SELECT currency {of_tenant}"),
        _variable("type", "Conversion type", POSTGRES, f"SELECT conversion_type {of_tenant}", several=True),
        _variable("model", "Model", POSTGRES, models, default="linear"),
        _variable("models", "Models side by side", POSTGRES, models, several=True),
    ]
    return _dashboard("attributary-marketing", "Attributary: marketing", page.panels, variables, ("now-30d", "5m"))


def marketing_queries() -> Iterator[Query]:
    """Rows and panels of marketing.sql, in order."""
    text = QUERIES.read_text(encoding="utf-8").partition("\n\n")[2]
    for block in re.split(r"\n\n(?=-- (?:row|panel))", text):
        if block.startswith("-- row: "):
            yield Query("row", block.removeprefix("-- row: ").strip())
            continue
        found = _PANEL.fullmatch(block.strip())
        if found is None:
            raise ValueError(f"{QUERIES.name}: {block.splitlines()[0]}")
        limits = (float(found["yellow"]), float(found["red"])) if found["red"] else None
        size = int(found["width"]), int(found["height"])
        yield Query(
            found["kind"], found["title"], found["unit"], size, found["about"], limits, found["sql"].strip()
        )  # fmt: skip


class _Page:
    """Puts panels beside each other, and below where a line is full."""

    def __init__(self) -> None:
        self.panels: list[dict[str, Any]] = []
        self._id = self._x = self._y = self._height = 0

    def row(self, title: str, folded: Sequence[dict[str, Any]] | None = None) -> None:
        """Begin a row; with panels of its own it is folded until somebody opens it."""
        self._end_line()
        row = {"type": "row", "title": title, "collapsed": folded is not None, "panels": []} | self._place(24, 1)
        self._end_line()
        below = self._y
        for panel in folded or ():
            row["panels"].append(panel | self._place(8, 7))
        self._x, self._y, self._height = 0, below, 0
        self.panels.append(row)

    def add(self, panel: dict[str, Any], width: int, height: int) -> None:
        """Add a panel beside the one before."""
        self.panels.append(panel | self._place(width, height))

    def _place(self, width: int, height: int) -> dict[str, Any]:
        if self._x + width > 24:
            self._end_line()
        self._id += 1
        place = {"id": self._id, "gridPos": {"h": height, "w": width, "x": self._x, "y": self._y}}
        self._x += width
        self._height = max(self._height, height)
        return place

    def _end_line(self) -> None:
        self._y += self._height
        self._x = self._height = 0


def _stat(metric: MetricDefinition, limits: tuple[float, float]) -> dict[str, Any]:
    """Return one number with a colour: what is now, of a counter how many in the chosen time."""
    name = f"{metric.name}{{{FILTER}}}"
    expression = f"sum(increase({name}[$__range]))" if metric.kind == "counter" else f"max({name})"
    return {
        "type": "stat",
        "title": _title(metric),
        "description": metric.help,
        "datasource": PROMETHEUS,
        "targets": [{"datasource": PROMETHEUS, "expr": expression, "refId": "A"}],
        "fieldConfig": _fields("short" if metric.kind == "counter" else _unit(metric), limits),
        "options": {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
    }


def _series(metric: MetricDefinition, limits: tuple[float, float] | None = None) -> dict[str, Any]:
    targets = [
        {"datasource": PROMETHEUS, "expr": expression, "legendFormat": legend, "refId": chr(ord("A") + index)}
        for index, (expression, legend) in enumerate(_expressions(metric))
    ]
    fields = _fields(_unit(metric), limits)
    fields["defaults"] |= {"min": 0, "custom": {"thresholdsStyle": {"mode": "dashed" if limits else "off"}}}
    return {
        "type": "timeseries",
        "title": _title(metric),
        "description": metric.help,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": fields,
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _title(metric: MetricDefinition) -> str:
    words = metric.name.removeprefix("attribution_").removesuffix("_total").replace("_", " ")
    return words[:1].upper() + words[1:]


def _unit(metric: MetricDefinition) -> str:
    if metric.kind == "counter":
        return "cps"
    endings = {"_seconds": "s", "_bytes": "bytes", "_percent": "percent", "_held": "bool", "_paused": "bool"}
    return next((unit for ending, unit in endings.items() if metric.name.endswith(ending)), "short")


def _expressions(metric: MetricDefinition) -> Iterator[tuple[str, str]]:
    labels = ", ".join(metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "all"
    if metric.kind == "counter":
        yield f"sum by ({labels}) (rate({metric.name}{{{FILTER}}}[$__rate_interval]))", legend
    elif metric.kind == "gauge":
        yield f"max by ({labels}) ({metric.name}{{{FILTER}}})", legend
    else:
        by = ", ".join(("le", *metric.labels))
        for quantile in (0.5, 0.95, 0.99):
            rate = f"sum by ({by}) (rate({metric.name}_bucket{{{FILTER}}}[$__rate_interval]))"
            yield f"histogram_quantile({quantile}, {rate})", f"p{quantile * 100:.0f} {legend}"


def _sql_panel(query: Query) -> dict[str, Any]:
    target = {
        "datasource": POSTGRES,
        "rawQuery": True,
        "editorMode": "code",
        "format": "time_series" if query.kind == "timeseries" else "table",
        "rawSql": query.sql,
        "refId": "A",
    }
    panel = {
        "type": "table" if query.kind == "matrix" else query.kind,
        "title": query.title,
        "description": query.about,
        "datasource": POSTGRES,
        "targets": [target],
        "fieldConfig": _fields(query.unit, query.thresholds),
        "options": {},
    }
    if query.kind == "stat":
        panel["options"] = {
            "colorMode": "background" if query.thresholds else "none",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        }
    elif query.kind == "barchart":
        panel["options"] = {"orientation": "horizontal", "showValue": "always", "legend": {"showLegend": False}}
    elif query.kind == "timeseries":
        panel["fieldConfig"]["defaults"]["custom"] = {
            "drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"},
        }  # fmt: skip
    elif query.kind == "matrix":
        fields = _MATRIX.match(query.sql)
        if fields is None:
            raise ValueError(f"{query.title}: a matrix selects a name, a name and a number")
        options = dict(zip(("rowField", "columnField", "valueField"), fields.groups(), strict=True))
        panel["transformations"] = [{"id": "groupingToMatrix", "options": options}]
    return panel


def _fields(unit: str, limits: tuple[float, float] | None) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": unit, "noValue": "no data"}
    if limits:
        yellow, red = limits
        steps = [{"color": "green", "value": None}]
        steps += [{"color": "yellow", "value": yellow}] if yellow < red else []
        defaults["thresholds"] = {"mode": "absolute", "steps": [*steps, {"color": "red", "value": red}]}
        defaults["color"] = {"mode": "thresholds"}
    return {"defaults": defaults, "overrides": []}


def _variable(
    name: str, label: str, source: dict[str, str], query: str, *, several: bool = False, default: str | None = None
) -> dict[str, Any]:
    found = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": source,
        "query": {"query": query, "refId": name} if source is PROMETHEUS else query,
        "refresh": 2,
        "includeAll": several,
        "multi": several,
    }
    if several:
        found["current"] = {"text": "All", "value": "$__all"}
        if source is PROMETHEUS:
            found["allValue"] = ".*"  # also series without the label
    elif default:
        found["current"] = {"text": default, "value": default}
    return found


def _dashboard(
    uid: str, title: str, panels: list[dict[str, Any]], variables: list[dict[str, Any]], times: tuple[str, str]
) -> dict[str, Any]:
    since, refresh = times
    return {
        "uid": uid,
        "title": title,
        "tags": ["attributary"],
        "schemaVersion": 41,
        "version": 2,
        "editable": False,
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "timezone": "utc",
        "panels": panels,
        "templating": {"list": variables},
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
