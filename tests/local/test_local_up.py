"""`attributary up` and `down`, as a user types them: real Kafka, real Postgres, every stage a process."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.local.folder import StackFolder
from attributary.local.stages import command_line
from tests.factories.dashboards import panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attributary.local.broker import Broker

_NOON = "2026-06-01T12:00:00Z"
# Panels that may have nothing to show on a stack of a minute where all goes well.
WITHOUT_DATA = {
    # Nobody asked or sent anything over HTTP yet.
    "Api request seconds", "Api requests", "Collector records", "Collector rejected", "Collector request seconds",
    "Collector requests", "Collector spool records", "Collector unseen", "Collector webhook deliveries",
    "Collector webhook left out",
    # It did not happen: letters, conflicts, refusals, pauses, held partitions, batches that cannot be unpacked.
    "Conversion events ignored", "Dlq near end records", "Dlq records", "Event conflicts", "Held partitions",
    "Kafka refusals", "Paused", "Unreadable batches",
    # Off, or not of the stand-ins: the express lane, probes, tokens that end, Meta's usage, a job.
    "Express records", "Forward probe findings", "Forward token left seconds", "Forward usage percent", "Job seconds",
    # Of destinations that have no forwarder there: tokens of an hour, verdicts that come later.
    "Forward late refusals", "Forward late verdicts", "Forward refresh token left seconds", "Forward token refreshes",
    # No connection of it is over TLS; looked at every few minutes.
    "Certificate left seconds", "Retention left seconds", "Retention seconds",
}  # fmt: skip
MEASURED = ["--prometheus"] if shutil.which("prometheus") else []
_NOT_OURS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "META_PIXEL_ID", "GA4_MEASUREMENT_ID")


def attributary(*arguments: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    done = subprocess.run(
        command_line(*arguments), env=environment | variables, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def good_status(variables: dict[str, str], deadline: float) -> dict[str, Any]:
    """Ask until `attributary status` ends with 0; return what it says. A stage may be behind for a moment."""
    while True:
        done = subprocess.run(
            command_line("status", "--json"), env=os.environ | variables, capture_output=True, text=True, check=False,
            timeout=500,
        )  # fmt: skip
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        assert time.monotonic() < deadline, done.stdout + done.stderr


def variables_of(folder: StackFolder) -> dict[str, str]:
    lines = folder.environment_file.read_text(encoding="utf-8").splitlines()
    pairs = [shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines]
    return dict(pairs)


def stored(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return row[0] if row else 0


def logs(folder: StackFolder) -> str:
    """The last lines of every process, for the report of a failure."""
    files = sorted(folder.log("up").parent.glob("*.log"))
    return "\n".join(f"== {file.name}\n" + "\n".join(file.read_text().splitlines()[-8:]) for file in files)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as answer:
        return str(answer.read(), "utf-8")


def posted(url: str, key: str) -> int:
    """Send one touchpoint over HTTP; return the status."""
    record = {"event_id": "http-1", "anonymous_id": "a1", "channel": "email", "platform": "x", "occurred_at": _NOON}
    request = urllib.request.Request(  # noqa: S310  # the collector of this test
        f"{url}/api/v1/attribution/track/event", json.dumps(record).encode(), {"Authorization": f"Bearer {key}"}
    )
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def expressions() -> list[tuple[str, str]]:
    """Every title and expression of the dashboards, as Grafana sends it with every choice left open."""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"] if "expr" in target]
    times = {"$__rate_interval": "1m", "$__interval": "1m", "$__range": "5m"}
    for name, length in times.items():
        found = [(title, text.replace(name, length)) for title, text in found]
    return [(title, re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", text)) for title, text in found]


def without_data(port: int) -> dict[str, str]:
    """Return the titles of panels, each with its expression, for which this stack's Prometheus has no number.

    Raises:
        HTTPError: it does not understand one.
    """
    found = {}
    for title, text in expressions():
        answer = json.loads(get(port, f"/api/v1/query?query={urllib.parse.quote(text)}"))
        if not answer["data"]["result"]:
            found[title] = text
    return found


def every_panel_has_data(ports: dict[str, int]) -> None:
    deadline = time.monotonic() + 180
    while MEASURED and (empty := without_data(ports["prometheus"]).keys() - WITHOUT_DATA):
        assert time.monotonic() < deadline, f"panels without data: {sorted(empty)}"
        time.sleep(1)


def published_spend_is_stored(folder: StackFolder, variables: Mapping[str, str]) -> None:
    report = str(Path(__file__).resolve().parents[2] / "examples" / "spend" / "google.csv")
    attributary(
        "spend", "import", report, "--mapping", "google", "--complete", "--tenant", "acme", "--publish", **variables
    )
    deadline = time.monotonic() + 180
    while not stored(variables["DATABASE_URL"], "attribution_spend"):
        assert time.monotonic() < deadline, f"published spend is not stored\n{logs(folder)}"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.postgres
def test_a_stack_attributes_stops_and_goes_on_where_it_was(broker: Broker, tmp_path: Path) -> None:
    if broker.kind != "jars":
        pytest.skip("the local stack runs on Kafka's jars, and the run uses another kind of broker")
    folder = StackFolder(tmp_path / "up")
    try:
        said = attributary("up", "--data", str(folder.path), "--detach", "--fake-destinations", *MEASURED)
        for text in ("Attributary is up.", "forwarder-meta", "stages: waiting until they are ready"):
            assert text in said
        assert "stitcher       ready" in attributary("up", "--data", str(folder.path), "--status")
        assert (folder.path / "logs" / "kafka.log").read_text()
        assert (folder.path / "monitoring" / "prometheus.yml").exists()
        variables = variables_of(folder)
        attributary("simulate", "--touchpoints", "400", "--conversions", "40", **variables)
        published_spend_is_stored(folder, variables)
        deadline = time.monotonic() + 180
        while stored(variables["DATABASE_URL"], "attribution_results") < 40:
            assert time.monotonic() < deadline, f"no results\n{logs(folder)}"
            time.sleep(0.2)
        ports = json.loads((folder.path / "ports.json").read_text())
        assert get(ports["stitcher"], "/readyz") == "ok\n"
        report = good_status(variables, deadline)
        assert {each["level"] for each in report["findings"]} <= {"good", "note"}, report
        assert [each["text"] for each in report["findings"] if each["part"] == "sweeper"] == ["1 process"]
        while not json.loads(get(ports["stand-in-meta"], "/_admin/events")):
            assert time.monotonic() < deadline, f"nothing was forwarded\n{logs(folder)}"
            time.sleep(0.2)
        every_panel_has_data(ports)
        assert "stopped" in attributary("down", "--data", str(folder.path))
        assert folder.owner() is None

        said = attributary("up", "--data", str(folder.path), "--detach")
        assert "forwarder-meta off without credentials" in " ".join(said.split()), "however wide the names are"
        again = variables_of(folder)  # without the accounts of the stand-ins, and without their forwarders
        assert not [name for name in again if name.startswith("META_")]
        addresses = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "COLLECT_URL", "SERVE_URL")
        assert [again[name] for name in addresses] == [variables[name] for name in addresses]
        assert "forwarder-meta" in variables["STATUS_READY_URLS"]
        assert "forwarder-meta" not in again["STATUS_READY_URLS"]
        assert stored(variables["DATABASE_URL"], "attribution_touchpoints") == 400
        attributary("simulate", "--touchpoints", "100", "--conversions", "10", "--seed", "1", **variables)
        deadline = time.monotonic() + 180
        key = attributary("collect", "keys", "new", "--tenant", "acme", "--kind", "sk", **variables).strip()
        while posted(variables["COLLECT_URL"], key) != 200:  # it reads the file of keys again by itself
            assert time.monotonic() < deadline, f"the collector takes nothing\n{logs(folder)}"
            time.sleep(0.2)
        while stored(variables["DATABASE_URL"], "attribution_touchpoints") < 501:
            assert time.monotonic() < deadline, f"no touchpoints after the second start\n{logs(folder)}"
            time.sleep(0.2)
    finally:
        attributary("down", "--data", str(folder.path))
    assert "no stack runs" in attributary("down", "--data", str(folder.path))
