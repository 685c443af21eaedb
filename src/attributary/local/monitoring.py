"""Prometheus and Grafana beside a local stack: configuration for its ports, and Prometheus itself when asked for.

Contract: `write_monitoring` writes, below `monitoring/` in the stack's folder, a Prometheus configuration that scrapes
every process of the stack with the labels that the alert rules expect, and Grafana's provisioning of both data sources
and of the dashboards. `start_prometheus` runs the Prometheus of this machine on it.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg.conninfo
import yaml

from attributary.local.paths import project_root
from attributary.local.ports import LOOPBACK
from attributary.local.process import ManagedProcess, ProcessFailedError, spawn, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attributary.local.folder import StackFolder

PROMETHEUS_PORT = 9090
_START_SECONDS = 180.0


def write_monitoring(folder: StackFolder, ports: Mapping[str, int], dsn: str, prometheus_port: int) -> Path:
    """Write the configuration of Prometheus and Grafana; returns their folder.

    Args:
        folder: The stack's.
        ports: Port of /metrics by process.
        dsn: Postgres, for the dashboards that read it.
        prometheus_port: Where Prometheus listens, or would.
    """
    home = folder.path / "monitoring"
    (home / "provisioning" / "datasources").mkdir(parents=True, exist_ok=True)
    (home / "provisioning" / "dashboards").mkdir(exist_ok=True)
    root = project_root()
    rules = root / "deploy" / "prometheus" / "rules.yml" if root else None
    _write(home / "prometheus.yml", _prometheus(ports, prometheus_port, rules))
    _write(home / "provisioning" / "datasources" / "attributary.yml", _sources(dsn, prometheus_port))
    if root:
        providers = {
            "name": "attributary", "type": "file", "allowUiUpdates": False,
            "options": {"path": str(root / "deploy" / "grafana" / "dashboards")},
        }  # fmt: skip
        _write(home / "provisioning" / "dashboards" / "attributary.yml", {"apiVersion": 1, "providers": [providers]})
    return home


def start_prometheus(folder: StackFolder, home: Path, port: int) -> ManagedProcess:
    """Start the machine's Prometheus on the configuration that `write_monitoring` wrote.

    Raises:
        ProcessFailedError: it is not installed, or does not become ready.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise ProcessFailedError(
            "prometheus is not installed; install it (Debian: apt-get install prometheus), or start without "
            f"--prometheus and give your own the configuration {home / 'prometheus.yml'}"
        )
    arguments = [
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    child = spawn([program, *arguments], name="Prometheus", log=folder.log("prometheus"))

    def refusal() -> str | None:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/-/ready", timeout=1):
                return None
        except OSError as error:
            return str(error)

    with ExitStack() as undo:
        undo.callback(child.kill)
        wait_until_ready(child, refusal, timeout_seconds=_START_SECONDS)
        undo.pop_all()  # it is up: keep it
    return child


def _prometheus(ports: Mapping[str, int], own_port: int, rules: Path | None) -> Mapping[str, object]:
    # Jobs as in deploy/prometheus: what may be off has a job of its own, and must not look like a process that is down.
    jobs: dict[str, dict[str, int]] = {
        f"attributary{suffix}": {} for suffix in ("", "-forwarders", "-collector", "-api")
    }
    for name, port in ports.items():
        suffix = "-forwarders" if name.startswith("forwarder-") else f"-{name}" if name in {"collector", "api"} else ""
        jobs[f"attributary{suffix}"][name] = port
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(rules)] if rules and rules.exists() else [],
        "scrape_configs": [
            *({"job_name": job, "static_configs": _targets(each)} for job, each in jobs.items()),
            {"job_name": "prometheus", "static_configs": [{"targets": [f"{LOOPBACK}:{own_port}"]}]},
        ],
    }


def _targets(ports: Mapping[str, int]) -> list[Mapping[str, object]]:
    return [{"targets": [f"{LOOPBACK}:{port}"], "labels": {"process": name}} for name, port in ports.items()]


def _sources(dsn: str, port: int) -> Mapping[str, object]:
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    host, number = parts.get("host") or LOOPBACK, parts.get("port") or 5432
    # A socket is named by its folder; Grafana takes it as it is.
    postgres = {
        "name": "Postgres", "uid": "attributary-postgres", "type": "postgres", "url": f"{host}:{number}",
        "user": parts.get("user", ""), "editable": False,
        "jsonData": {"database": parts.get("dbname", ""), "sslmode": parts.get("sslmode", "disable")},
        "secureJsonData": {"password": parts.get("password", "")},
    }  # fmt: skip
    prometheus = {
        "name": "Prometheus", "uid": "attributary-prometheus", "type": "prometheus",
        "url": f"http://{LOOPBACK}:{port}", "isDefault": True, "editable": False,
    }  # fmt: skip
    return {"apiVersion": 1, "datasources": [prometheus, postgres]}


def _write(file: Path, document: Mapping[str, object]) -> None:
    """Write YAML that only its owner may read: a DSN may hold a password."""
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False), encoding="utf-8")
