"""What is deployed agrees with the code: commands, ports, metrics, SQL, and the least privilege everywhere."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import typer.main
import yaml

from attributary.cli.metrics import all_metrics
from attributary.consumers.destinations.account_fields import ACCOUNT_FIELDS
from attributary.consumers.destinations.catalog import NAMES
from attributary.consumers.store.access.plan import apply
from attributary.local.kafka_jars import KAFKA_VERSION
from attributary.local.kafka_maven import POM
from attributary.local.postgres_install import find_install
from attributary.local.stages import STAGES
from tests.factories.dashboards import panels, plain_sql

if TYPE_CHECKING:
    from attributary.local.postgres import Postgres

CATALOGUE = all_metrics()
ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "attributary:local"}
JOBS = {"migrate": ("db", "migrate"), "topics": ("topics", "apply")}
COMMANDS = {**JOBS, **{stage.name: stage.arguments for stage in STAGES}}
MANIFESTS: list[dict[str, Any]] = [
    document
    for file in sorted((ROOT / "deploy" / "k8s").glob("*.yaml"))
    if file.name != "kustomization.yaml"
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
WORKLOADS = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] in {"StatefulSet", "Job"}}

FOLDERS = {"FORWARD_TOKEN_DIR"}  # variables that name a place, not a secret
COMMON: dict[str, str] = next(one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")


def known_metrics() -> set[str]:
    """Names as Prometheus stores them."""
    catalogue = all_metrics()
    names = {metric.name for metric in catalogue}
    series = ("bucket", "sum", "count")
    return names | {f"{one.name}_{part}" for one in catalogue if one.kind == "histogram" for part in series}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\battribution_[a-z0-9_]+", expression))


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=" ".join)
def test_every_process_is_a_command(arguments: tuple[str, ...]) -> None:
    from attributary.cli.main import app

    command: Any = typer.main.get_command(app)
    for number, name in enumerate(arguments):
        found = getattr(command, "commands", {}).get(name)
        if found is None:
            # The rest are arguments of the command found so far, which must take some.
            assert number > 0, f"attributary {name} is not a command"
            assert [one for one in command.params if one.param_type_name == "argument"]
            return
        command = found


def test_compose_and_kubernetes_run_what_the_local_stack_runs() -> None:
    assert {name: tuple(service["command"]) for name, service in OURS.items()} == COMMANDS
    in_cluster = {name: tuple(_container(one)["args"]) for name, one in WORKLOADS.items()}
    demanded = ("--production", "--replication-factor", "3")  # S22: an acknowledged record stands on more than one disk
    assert in_cluster == {**COMMANDS, "topics": (*COMMANDS["topics"], *demanded)}


def test_every_scraped_port_is_served() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = [job for job in scraped["scrape_configs"] if job["job_name"].startswith("attributary")]
    targets = {target for job in jobs for static in job["static_configs"] for target in static["targets"]}
    served = {f"{stage.name}:{SERVICES[stage.name]['environment']['METRICS_PORT']}" for stage in STAGES}
    assert targets == served


def test_alerts_name_known_metrics() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert metrics_in(rule["expr"]) <= known_metrics(), rule["alert"]
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert set(rule["annotations"]) == {"summary", "description"}


def test_every_metric_has_a_panel_and_no_panel_an_unknown_one() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in metrics_in(target.get("expr", ""))}
    assert shown <= known_metrics()
    assert {metric.name for metric in all_metrics()} <= shown | {name.removesuffix("_bucket") for name in shown}


def test_dashboards_are_up_to_date() -> None:
    script = ROOT / "deploy" / "grafana" / "generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_use_the_provisioned_sources() -> None:
    sources = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/attributary.yml").read_text(encoding="utf-8")
    )
    known = {source["uid"] for source in sources["datasources"]}
    assert {panel["datasource"]["uid"] for panel in panels()} <= known


def test_the_reader_reads_the_views_that_the_dashboards_query_and_nothing_else(
    database: str, postgres: Postgres
) -> None:
    if postgres.kind == "given":
        pytest.skip("roles belong to the whole server, and this one is not ours")
    queries = [target["rawSql"] for panel in panels() for target in panel["targets"] if "rawSql" in target]
    assert queries
    psql = find_install().programs / "psql"
    script = ROOT / "deploy" / "postgres" / "roles.sql"
    for _ in range(2):
        subprocess.run(
            [str(psql), "--no-psqlrc", "--quiet", database, "--file", str(script)],
            env={**os.environ, "READER_PASSWORD": "it's made up"},
            check=True,
        )
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)  # before and after, dashboards see the same
        connection.execute("SET ROLE attributary_reader")
        for query in queries:
            connection.execute(plain_sql(query).encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM attribution_touchpoints")
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY attributary_reader")
        connection.execute("DROP ROLE attributary_reader")


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_the_least_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service["image"].endswith(":latest")
    if name not in {*JOBS, "reader"}:
        assert service["healthcheck"]["test"]
    if name in OURS:
        assert service["read_only"] is True
        beside = {"collector": ["host"], "api": ["host"]} | {f"forwarder-{name}": ["internet"] for name in NAMES}
        assert service["networks"] == ["pipeline", *beside.get(name, [])]


def test_no_secret_stands_in_the_compose_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|DATABASE_URL")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name) and name not in FOLDERS:
                assert "${" in value, name


def test_every_variable_of_the_compose_file_is_explained() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    explained = (ROOT / "deploy" / "env.example").read_text(encoding="utf-8")
    for name in set(re.findall(r"\$\{(\w+)", text)):
        assert re.search(rf"(?m)^{name}=", explained), name


def test_newcomer_41_the_example_has_the_defaults_of_the_compose_file_and_nothing_unused_runs() -> None:
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "env.example").read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    )
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert {name: (example[name], default) for name, default in defaults.items() if example[name] != default} == {}
    assert COMPOSE["services"]["registry"]["profiles"] == ["registry"]
    assert "registry" not in {name for each in COMPOSE["services"].values() for name in each.get("depends_on", ())}


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_have_the_least_privilege(name: str) -> None:
    pod = WORKLOADS[name]["spec"]["template"]["spec"]
    container = _container(WORKLOADS[name])
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bounds in ("requests", "limits"):
        assert {"memory", "ephemeral-storage"} <= set(container["resources"][bounds])
    mounted = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container["volumeMounts"]
        for volume in pod["volumes"]
        if volume["name"] == mount["name"] and "secret" in volume
        for item in volume["secret"].get("items", [])
    }
    for variable in container.get("env", []):  # S27: a secret is a file, not a variable that children and dumps show
        if variable["name"] in FOLDERS:
            continue
        if "value" in variable:
            assert variable["name"].endswith("_FILE")
            assert variable["value"] in mounted
        else:
            source = variable["valueFrom"]
            assert "fieldRef" in source or source["secretKeyRef"]["optional"] is True
    if mounted:
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_s27_tls_is_demanded_and_pods_are_moved_one_at_a_time() -> None:
    assert COMMON["KAFKA_SECURITY_PROTOCOL"] == "SSL"
    assert COMMON["PGSSLMODE"] == "require"
    [budget] = [one for one in MANIFESTS if one["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == 1
    [jobs] = budget["spec"]["selector"]["matchExpressions"]
    assert set(jobs["values"]) == set(JOBS)
    policies = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy"}
    open_ports = {
        port["port"] for rule in policies["processes"]["egress"] for port in rule["ports"] if port["protocol"] == "TCP"
    }
    assert open_ports == {53, int(COMMON["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2]), 8081, 5432}
    [internet] = policies["forwarders-internet"]["egress"]
    blocks = [to["ipBlock"] for to in internet["to"]]
    private = [
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.0.1",
        "192.168.1.1",
        "fd00::1",
        "fe80::1",
        "::1",
    ]
    assert not [address for address in private if is_open(blocks, address)]
    assert is_open(blocks, "157.240.0.35")
    assert is_open(blocks, "2a03:2880::1")


def is_open(blocks: list[dict[str, Any]], address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return any(
        ip in ipaddress.ip_network(block["cidr"])
        and not any(ip in ipaddress.ip_network(each) for each in block.get("except", []))
        for block in blocks
    )


def test_stages_in_the_cluster_have_probes_and_a_stable_ordinal() -> None:
    for stage in STAGES:
        workload = WORKLOADS[stage.name]
        container = _container(workload)
        assert workload["kind"] == "StatefulSet"
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        public = {"collector": [8080], "api": [8090]}.get(stage.name, [])
        assert [port["containerPort"] for port in container["ports"]] == [9464, *public]
        assert "ATTRIBUTION_INSTANCE" in [variable["name"] for variable in container["env"]]


def test_the_collector_keeps_its_spool_and_is_the_only_public_one() -> None:
    spec = WORKLOADS["collector"]["spec"]
    pod, container = spec["template"]["spec"], _container(WORKLOADS["collector"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    assert mounts[str(Path(COMMON["COLLECT_SPOOL"]).parent)] in claims
    assert mounts[str(Path(COMMON["COLLECT_KEYS_FILE"]).parent)] == "keys"
    assert pod["securityContext"]["fsGroup"] == 10001
    assert "DATABASE_URL" not in [variable["name"] for variable in container["env"]]
    [folder] = [volume.partition(":")[2] for volume in SERVICES["collector"]["volumes"]]
    assert SERVICES["collector"]["environment"]["COLLECT_SPOOL"].startswith(folder)
    assert f"install -d -o 10001 -g 10001 {folder}" in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    [public] = [one for one in MANIFESTS if one["kind"] == "Service" and one["metadata"]["name"] == "collector"]
    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["http"]


@pytest.mark.parametrize("name", ["linkedin", "google", "bingads"])
def test_a_forwarder_that_refreshes_tokens_keeps_them_on_a_volume(name: str) -> None:
    assert "refresh_token" in ACCOUNT_FIELDS[name].secrets
    spec = WORKLOADS[f"forwarder-{name}"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (folder,) = [one["value"] for one in container["env"] if one["name"] == "FORWARD_TOKEN_DIR"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert not mounts[folder].get("readOnly")
    assert mounts[folder]["name"] in [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    service = SERVICES[f"forwarder-{name}"]
    (volume,) = service["volumes"]
    assert volume.partition(":")[2] == service["environment"]["FORWARD_TOKEN_DIR"]
    assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_every_destination_with_refresh_tokens_has_such_a_volume() -> None:
    named = [name for name in NAMES if "refresh_token" in ACCOUNT_FIELDS[name].secrets]
    assert named == ["linkedin", "google", "bingads"]


def test_the_kustomization_lists_every_manifest() -> None:
    folder = ROOT / "deploy" / "k8s"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == sorted(file.name for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")
    assert not [one for one in MANIFESTS if one["kind"] == "Secret"]


def test_one_version_of_kafka_everywhere() -> None:
    assert f"<version>{KAFKA_VERSION}</version>" in POM.read_text(encoding="utf-8")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_the_alert_rules_fire_as_written() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    done = subprocess.run(
        [promtool, "test", "rules", "rules.test.yml"],
        cwd=ROOT / "deploy" / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _container(workload: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    assert len(containers) == 1
    return containers[0]
