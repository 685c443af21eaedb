"""The catalogue of metrics: names, units and meanings."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import attributary.consumers
from attributary.cli.metrics import all_metrics
from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.metrics import MetricDefinition

# What may follow the prefix of a gauge or a histogram: a unit, or what is counted.
_UNITS = (
    "_seconds",
    "_records",
    "_conversions",
    "_channels",
    "_tenants",
    "_accounts",
    "_jobs",
    "_erasures",
    "_percent",
    "_pending",
    "_stopped",
    "_held",
    "_info",
    "_paused",
    "_bytes",
    "_messages",
    "_connections",
    "_stale",
    "_partitions",
    "_identities",
    "_put_off",
)
_NAME = re.compile(r"attribution(_[a-z0-9]+)+")
_FORBIDDEN_LABELS = {"tenant", "tenant_id", "conversion_id", "event_id", "url", "user_id", "campaign", "path"}

ROOT = Path(__file__).resolve().parents[2]
_METRIC = re.compile(r"(?<![\w.:-])attribution_[a-z0-9_]+(?![\w.:-])")
_RECORDED: set[str] = set()

CATALOGUE = all_metrics()

definitions = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


@definitions
def test_every_metric_has_a_name_of_ours_with_its_unit(metric: MetricDefinition) -> None:
    assert _NAME.fullmatch(metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    if metric.kind == "gauge":
        assert metric.name.endswith(_UNITS)


@definitions
def test_every_metric_says_in_a_sentence_what_it_means(metric: MetricDefinition) -> None:
    assert len(metric.help.split()) >= 3
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")


@definitions
def test_no_label_has_many_values(metric: MetricDefinition) -> None:
    assert not _FORBIDDEN_LABELS & set(metric.labels)
    assert len(metric.labels) <= 3


def test_no_name_stands_twice() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))


def test_the_page_has_the_metrics_of_all_parts_of_the_consumers() -> None:
    before = list(CATALOGUE)
    for module in pkgutil.walk_packages(attributary.consumers.__path__, "attributary.consumers."):
        importlib.import_module(module.name)
    assert before == CATALOGUE


def test_every_metric_that_a_rule_a_dashboard_or_a_page_names_exists() -> None:
    names = {metric.name for metric in CATALOGUE}
    names |= {f"{m.name}_{part}" for m in CATALOGUE if m.kind == "histogram" for part in ("bucket", "sum", "count")}
    files = [*(ROOT / "deploy" / "prometheus").glob("*.yml"), *(ROOT / "deploy" / "grafana" / "dashboards").glob("op*")]
    files += (ROOT / "docs" / "how-to").glob("operate.md")
    named = {(file.name, name) for file in files for name in _METRIC.findall(file.read_text(encoding="utf-8"))}
    assert [pair for pair in sorted(named) if pair[1] not in names and pair[1] not in _RECORDED] == []
    assert len(named) > 20


def test_no_cell_of_the_page_is_split() -> None:
    assert [metric.name for metric in CATALOGUE if "|" in metric.help] == []


def test_a_step_that_raises_is_not_measured() -> None:
    def count() -> float:
        samples = next(iter(metrics.stage_seconds.collect())).samples
        return sum(one.value for one in samples if one.name.endswith("_count") and one.labels["stage"] == "test")

    with metrics.timed("test", "step"):
        pass
    assert count() == 1
    with pytest.raises(KeyError), metrics.timed("test", "step"):
        raise KeyError
    assert count() == 1
