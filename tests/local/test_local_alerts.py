"""S10: what stops -> which alert -> within which time; each row is played to promtool, once broken and once healthy."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from attributary.consumers.destinations.catalog import NAMES

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
PAGE = ROOT / "docs" / "how-to" / "operate.md"
STAGES = ("stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "trainer")
FORWARDERS = tuple(f"forwarder-{name}" for name in NAMES)


def up(process: str, values: str, job: str = "attributary") -> tuple[str, str]:
    return f'up{{job="{job}", process="{process}"}}', values


def hooks(outcome: str) -> str:
    """Name of the series of a shop's deliveries."""
    labels = f'process="collector", provider="shopify", source="shop", outcome="{outcome}"'
    return f"attribution_collector_webhook_deliveries_total{{{labels}}}"


# What stops, alert, minutes until it must fire, series.
ROWS: list[tuple[str, str, int, list[tuple[str, str]]]] = [
    *(
        (f"{stage} is down", "AttributaryProcessDown", 4, [up(stage, "1 0x40")]) for stage in STAGES
    ),
    *(
        (f"the target {stage} vanishes", "AttributaryProcessMissing", 12,
         [up(other, "1x40") for other in STAGES if other != stage])
        for stage in STAGES
    ),
    *(
        (f"{name} dies", "AttributaryForwarderDown", 12, [up(name, "1x5 0x40", "attributary-forwarders")])
        for name in FORWARDERS
    ),
    *(
        (f"{name} starts again and again", "AttributaryCrashLoop", 12,
         [(f'process_start_time_seconds{{job="{job}", process="{name}"}}', "0+120x40")])
        for job, names in (("attributary", STAGES), ("attributary-forwarders", FORWARDERS)) for name in names
    ),
    *(
        (f"{stage} hangs", "AttributaryStageHangs", 5, [(f'attribution_stalled_seconds{{stage="{stage}"}}', "0+60x40")])
        for stage in STAGES
    ),
    ("events wait for the stitcher", "AttributaryInputWaits", 10,
     [('attribution_oldest_unread_input_seconds{process="sweeper"}', "0+60x40")]),
    ("a batch cannot be unpacked", "AttributaryUnreadableBatch", 3,
     [('attribution_held_partitions{stage="stitcher"}', "_ 1x40")]),
    ("the brokers take a certificate no more", "AttributaryKafkaRefuses", 5,
     [('attribution_kafka_refusals_total{stage="stitcher", kind="tls"}', "0 0+10x40")]),
    ("a group rewinds for ever", "AttributaryRewinds", 16,
     [('attribution_batches_total{stage="stitcher", outcome="rewound"}', "0+1x40")]),
    ("the first dead letters of a process", "AttributaryDeadLetters", 6,
     [('attribution_dlq_records_total{stage="stitcher", topic="t", step="decode"}', "_x4 7x40")]),
    ("one tenant floods the dead letters", "AttributaryDeadLettersMany", 10,
     [('attribution_dlq_records_total{stage="stitcher", topic="t", step="decode"}', "0+500x40")]),
    ("an id makes one person of many", "AttributarySuspiciousIdentities", 32,
     [('attribution_suspicious_identities{process="sweeper", rule="anonymous_ids"}', "2x40")]),
    ("an ad account's reports stopped coming", "AttributaryStaleSpend", 32,
     [('attribution_stale_spend_accounts{process="sweeper"}', "1x40")]),
    ("reports of spend name old times", "AttributaryLateSpend", 35,
     [('attribution_spend_rows_total{process="spender", outcome="late"}', "0+20x40"),
      ('attribution_spend_rows_total{process="spender", outcome="new"}', "0+1x40")]),
    ("a record ends the process again and again", "AttributaryQuarantine", 3,
     [('attribution_quarantined_records_total{stage="stitcher", topic="t"}', "0 1x40")]),
    ("the stage ends at each record", "AttributaryQuarantine", 1,
     [('attribution_quarantine_held{stage="stitcher"}', "3x40")]),
    *(
        (f"{stage} stands while records wait", "AttributaryStageStuck", 16,
         [(f'attribution_consumer_lag_records{{stage="{stage}", topic="t"}}', "500x40"),
          (f'attribution_records_consumed_total{{stage="{stage}", topic="t"}}', "9x40")])
        for stage in ("stitcher", "attributor", "auditor", "trainer", "forwarder_meta")
    ),
    ("half of the retention has passed", "AttributaryRetentionNear", 12,
     [('attribution_retention_seconds{stage="stitcher", topic="t"}', "604800x40"),
      ('attribution_retention_left_seconds{stage="stitcher", topic="t"}', "302000x40")]),
    ("the stitcher was off for half of the retention", "AttributaryRetentionNear", 12,
     [('attribution_oldest_unread_input_seconds{process="sweeper"}', "302500x40")]),
    ("dead letters are near their end", "AttributaryDeadLettersNearEnd", 17,
     [('attribution_dlq_near_end_records{stage="stitcher", topic="t.dlq"}', "4x40")]),
    ("the disk of Postgres is nearly full", "AttributaryPostgresDiskFull", 12,
     [('node_filesystem_avail_bytes{mountpoint="/var/lib/postgresql"}', "10x40"),
      ('node_filesystem_size_bytes{mountpoint="/var/lib/postgresql"}', "100x40")]),
    ("a refund exceeds its order", "AttributaryOverRefunded", 15,
     [('attribution_over_refunded_total{process="auditor"}', "0x10 1x30")]),
    ("a partition of Kafka lacks a replica", "AttributaryKafkaUnderReplicated", 12,
     [("kafka_server_replicamanager_underreplicatedpartitions", "1x40")]),
    ("the collector dies", "AttributaryCollectorDown", 9, [up("collector", "1x5 0x40", "attributary-collector")]),
    ("the read API dies", "AttributaryApiDown", 9, [up("api", "1x5 0x40", "attributary-api")]),
    ("the read API answers 503", "AttributaryApiFails", 12,
     [('attribution_api_requests_total{process="api", endpoint="results", status="503"}', "0+9x40")]),
    ("the collector starts again and again", "AttributaryCrashLoop", 12,
     [('process_start_time_seconds{job="attributary-collector", process="collector"}', "0+120x40")]),
    ("the collector gets no acknowledgement", "AttributaryCollectorLogAway", 4,
     [('attribution_collector_log_paused{process="collector"}', "1x40")]),
    ("the spool fills", "AttributaryCollectorSpoolFills", 3,
     [('attribution_collector_spool_bytes{process="collector"}', "900x40"),
      ('attribution_collector_spool_limit_bytes{process="collector"}', "1000x40")]),
    ("the spool is not drained", "AttributaryCollectorSpoolOld", 8,
     [('attribution_collector_spool_oldest_seconds{process="collector"}', "4000x40")]),
    ("the collector refuses records", "AttributaryCollectorRefuses", 5,
     [('attribution_collector_requests_total{process="collector", endpoint="/track/event", status="503"}', "0+9x40")]),
    ("a request fails", "AttributaryCollectorFails", 3,
     [('attribution_collector_requests_total{process="collector", endpoint="/track/event", status="500"}', "0 1x40")]),
    ("a spooled record is damaged", "AttributaryCollectorSpoolDamaged", 3,
     [('attribution_collector_spool_records_total{process="collector", outcome="corrupt"}', "0 1x40")]),
    ("the file of keys cannot be used", "AttributaryCollectorKeysStale", 6,
     [('attribution_collector_keys_stale{process="collector"}', "1x40")]),
    ("a client sends what breaks rules", "AttributaryCollectorRejects", 20,
     [('attribution_collector_records_total{process="collector", kind="touchpoint", outcome="accepted"}', "0+10x40"),
      ('attribution_collector_records_total{process="collector", kind="unknown", outcome="rejected"}', "0+10x40")]),
    ("a shop's deliveries fit no record", "AttributaryWebhookUnmapped", 5, [(hooks("unmapped"), "0 0 1x40")]),
    ("a webhook's secret was changed", "AttributaryWebhookRefused", 25,
     [(hooks("refused"), "0+1x40"), (hooks("accepted"), "7x40")]),
    ("Postgres is away", "AttributaryPaused", 7, [('attribution_paused{stage="auditor"}', "1x40")]),
    ("credits do not sum", "AttributaryCreditImbalance", 2,
     [('attribution_credit_imbalance_total{process="auditor"}', "0 1x40")]),
    ("a result is computed twice, differently", "AttributaryResultConflict", 2,
     [('attribution_result_conflicts_total{process="auditor"}', "0 1x40")]),
    ("a version does not rise", "AttributaryVersionsOutOfOrder", 2,
     [('attribution_versions_out_of_order_total{process="auditor"}', "0 1x40")]),
    ("a version gets no result", "AttributaryResultsOwed", 12,
     [('attribution_oldest_unobserved_seconds{process="sweeper"}', "0+60x60")]),
    ("versions of a person are put off for long", "AttributaryPutOffForLong", 77,
     [('attribution_oldest_put_off_seconds{process="sweeper"}', "0+60x120")]),
    ("the express lane is behind", "AttributaryExpressBehind", 14,
     [('attribution_express_delay_seconds{process="express"}', "0+60x60")]),
    ("retention is behind", "AttributaryRetentionBehind", 17,
     [('attribution_retention_behind_seconds{process="sweeper"}', "172801x40")]),
    ("retention is refused", "AttributaryRetentionRefused", 17,
     [('attribution_retention_refused_tenants{process="sweeper"}', "1x40")]),
    ("an erasure is overdue", "AttributaryErasureOverdue", 17,
     [('attribution_overdue_erasures{process="sweeper"}', "0 1x40")]),
    ("nothing becomes final", "AttributaryFinalisingHeld", 17,
     [('attribution_finalising_held{process="sweeper"}', "0 1x40")]),
    ("writers meet deadlocks", "AttributaryDeadlocks", 12,
     [('attribution_deadlocks_total{process="stitcher"}', "0+1x40")]),
    ("the backlog of a stage grows", "AttributaryLagGrows", 22,
     [('attribution_consumer_lag_records{stage="attributor", topic="t"}', "0+10000x60")]),
    ("the reporter is behind", "AttributaryReportsBehind", 28,
     [('attribution_rollup_until_seconds{process="reporter"}', "0x40"),
      ('attribution_consumer_lag_records{stage="reporter", topic="t"}', "5000x40")]),
    ("the outcome of commits is in doubt", "AttributaryDoubts", 14,
     [('attribution_producer_epochs_total{stage="stitcher"}', "0+1x40")]),
    ("results take longer than 5 seconds", "AttributarySlowResults", 20,
     [('attribution_end_to_end_latency_seconds_bucket{process="attributor", le="5"}', "0+1x40"),
      ('attribution_end_to_end_latency_seconds_bucket{process="attributor", le="60"}', "0+9x40"),
      ('attribution_end_to_end_latency_seconds_bucket{process="attributor", le="+Inf"}', "0+9x40")]),
    ("a trained version cannot be used", "AttributaryModelVersionUnusable", 2,
     [('attribution_model_versions_unusable_total{process="attributor", model="markov"}', "0 1x40")]),
    ("the training state is behind", "AttributaryTrainingStateBehind", 92,
     [('attribution_training_lag_seconds{process="sweeper"}', "0+60x120")]),
    ("a job fails", "AttributaryJobsFail", 2,
     [('attribution_jobs_total{process="trainer", kind="train", outcome="failed"}', "0 1x40")]),
    ("a job waits", "AttributaryJobsWait", 42,
     [('attribution_oldest_waiting_job_seconds{process="sweeper"}', "0+60x60")]),
    ("a job runs for long", "AttributaryJobRunsLong", 132,
     [('attribution_oldest_running_job_seconds{process="sweeper"}', "0+60x150")]),
    ("the version of a destination's API ends soon", "AttributaryDestinationApiEnds", 62,
     [('attribution_forward_api_left_seconds{destination="linkedin"}', "5184000-60x120")]),
    ("an access token of a destination ends soon", "AttributaryDestinationTokenEnds", 62,
     [('attribution_forward_token_left_seconds{destination="linkedin"}', "1209600-60x120")]),
    ("a destination refuses events that it had received", "AttributaryLateRefusals", 40,
     [('attribution_forward_late_verdicts_total{destination="google", verdict="refused"}', "0+1x60"),
      ('attribution_forward_late_verdicts_total{destination="google", verdict="accepted"}', "0+9x60")]),
    ("a token endpoint refuses an authorisation", "AttributaryDestinationTokenRefused", 2,
     [('attribution_forward_token_refreshes_total{destination="linkedin", outcome="refused"}', "0 1x40")]),
    ("a token endpoint gives no token", "AttributaryDestinationTokenNotRefreshed", 20,
     [('attribution_forward_token_refreshes_total{destination="linkedin", outcome="failed"}', "0+1x40")]),
    ("a certificate of a connection ends soon", "AttributaryCertificateEnds", 62,
     [('attribution_certificate_left_seconds{used_for="kafka", holds="certificate"}', "1209600-60x120")]),
    ("a refresh token of a destination ends soon", "AttributaryDestinationRefreshTokenEnds", 62,
     [('attribution_forward_refresh_token_left_seconds{destination="linkedin"}', "1209600-60x120")]),
    ("a destination does not take an event name", "AttributaryEventNameStopped", 7,
     [('attribution_forward_names_stopped{destination="linkedin"}', "0 1x40")]),
    ("a destination refuses the credentials", "AttributaryChannelStopped", 2,
     [('attribution_forward_channels_stopped{destination="meta"}', "0 1x40")]),
    ("events wait for a destination", "AttributaryForwardingLate", 72,
     [('attribution_forward_oldest_pending_seconds{destination="meta"}', "0+60x90")]),
    ("a destination rejects events", "AttributaryRejections", 18,
     [('attribution_forward_events_total{destination="meta", state="rejected"}', "0+1x40"),
      ('attribution_forward_events_total{destination="meta", state="sent"}', "0+9x40")]),
    ("a destination's rate limit is near", "AttributaryRateLimitNear", 17,
     [('attribution_forward_usage_percent{destination="meta"}', "0 90x40")]),
]  # fmt: skip

HEALTHY = [
    *(up(stage, "1x90") for stage in STAGES),
    # Never up: off for want of credentials.
    *(up(name, "0x90", "attributary-forwarders") for name in FORWARDERS),
    *((f'process_start_time_seconds{{job="attributary", process="{stage}"}}', "1x20 1000x70") for stage in STAGES),
    *((f'attribution_stalled_seconds{{stage="{stage}"}}', "0.5x90") for stage in STAGES),
    ('attribution_oldest_unread_input_seconds{process="sweeper"}', "2x90"),
    ('attribution_dlq_records_total{stage="stitcher", topic="t", step="decode"}', "3x90"),
    ('attribution_quarantined_records_total{stage="stitcher", topic="t"}', "0x90"),
    ('attribution_suspicious_identities{process="sweeper", rule="anonymous_ids"}', "0x90"),
    ('attribution_stale_spend_accounts{process="sweeper"}', "0x90"),
    ('attribution_spend_rows_total{process="spender", outcome="late"}', "0+1x90"),
    ('attribution_spend_rows_total{process="spender", outcome="unchanged"}', "0+9x90"),
    ('attribution_consumer_lag_records{stage="stitcher", topic="t"}', "12x90"),
    ('attribution_records_consumed_total{stage="stitcher", topic="t"}', "9x90"),
    ('attribution_consumer_lag_records{stage="auditor", topic="t"}', "1200x90"),
    ('attribution_records_consumed_total{stage="auditor", topic="t"}', "0+9x90"),
    ('attribution_consumer_lag_records{stage="reporter", topic="t"}', "5000x30 0x60"),  # busy, then nothing to do
    ('attribution_records_consumed_total{stage="reporter", topic="t"}', "0+9x90"),
    ('attribution_rollup_until_seconds{process="reporter"}', "0+60x30 1800x60"),
    ('attribution_retention_seconds{stage="stitcher", topic="t"}', "604800x90"),
    ('attribution_retention_left_seconds{stage="stitcher", topic="t"}', "604000x90"),
    ('attribution_dlq_near_end_records{stage="stitcher", topic="t.dlq"}', "0x90"),
    ('attribution_quarantine_held{stage="stitcher"}', "0x90"),
    ('attribution_held_partitions{stage="stitcher"}', "0x90"),
    ('attribution_express_delay_seconds{process="express"}', "0x30 200x3 0x60"),  # a burst
    up("collector", "0x90", "attributary-collector"),  # never up: off
    ('attribution_collector_log_paused{process="collector"}', "0x30 1 1 0x60"),
    ('attribution_collector_spool_bytes{process="collector"}', "0x30 700 700 0x60"),
    ('attribution_collector_spool_limit_bytes{process="collector"}', "1000x90"),
    ('attribution_collector_spool_bytes{process="without"}', "0x90"),
    ('attribution_collector_spool_limit_bytes{process="without"}', "0x90"),
    ('attribution_collector_spool_oldest_seconds{process="collector"}', "0x30 60 120 0x60"),
    ('attribution_collector_keys_stale{process="collector"}', "0x90"),
    ('attribution_collector_records_total{process="collector", kind="touchpoint", outcome="accepted"}', "0+100x90"),
    ('attribution_collector_records_total{process="collector", kind="unknown", outcome="rejected"}', "0+3x90"),
    (hooks("accepted"), "0+5x90"), (hooks("refused"), "0+1x90"), (hooks("ignored"), "0+5x90"),
    (hooks("unmapped"), "0x90"),
]  # fmt: skip


def played(name: str, series: list[tuple[str, str]], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """A test for promtool; the comment behind each expression is all that it says of a test that fails."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [{**check, "expr": f"{check['expr']} # row: {name}"} for check in checks],
    }


def fires(alert: str, minutes: int) -> list[dict[str, Any]]:
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0'
    return [{"expr": firing, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": 1}]}]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What promtool finds wrong, by the name of a row: it plays all rows at once, each by itself."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed: no alert was tried")
    calm = [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m", "exp_samples": []} for at in (30, 60, 89)]
    tests = [played(what, series, fires(alert, minutes)) for what, alert, minutes, series in ROWS]
    tests += [played("healthy", HEALTHY, calm), played("silent", HEALTHY, fires("AttributaryProcessDown", 30))]
    file = tmp_path_factory.mktemp("alerts") / "rows.test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    found = {part.partition('", time')[0]: part for part in said.split(" # row: ")[1:]}
    # A row that is known not to fire is named, so a row that is not named has been played and fires.
    assert done.returncode != 0, said
    assert "silent" in found, said
    assert found.keys() <= {"healthy", "silent", *(row[0] for row in ROWS)}, said
    return found


def test_no_two_rows_have_one_name() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("what", [row[0] for row in ROWS])
def test_s10_what_stops_is_told(what: str, failures: dict[str, str]) -> None:
    assert what not in failures, failures[what]


def test_s10_the_table_of_the_docs_names_every_alert_and_the_time_that_was_tried() -> None:
    told: dict[str, int] = {}
    for alert, minutes in re.findall(
        r"^\| .+ \| `(Attributary\w+)`.* \| (\d+) min \|$", PAGE.read_text(), re.MULTILINE
    ):
        told[alert] = max(int(minutes), told.get(alert, 0))
    tried: dict[str, int] = {}
    for _, alert, minutes, _ in ROWS:
        tried[alert] = max(minutes, tried.get(alert, 0))
    rules = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert sorted(rules) == sorted(tried)
    assert told == tried


def test_s10_nothing_is_told_of_a_healthy_installation(failures: dict[str, str]) -> None:
    assert "healthy" not in failures, failures["healthy"]
