"""Kafka that denies by default: every process runs with its own rights alone, and says which one is missing."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from typer.testing import CliRunner

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.cli.event_producer import require_topics
from attributary.cli.main import app
from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.acls_admin import AclsAdmin
from attributary.consumers.runtime.acls_plan import AclAction, AclVerb, Rule
from attributary.consumers.runtime.errors import AccessRefused, ConfigError
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.kafka_errors import check_reachable
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.records import Outbound, Outcome
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings
from attributary.consumers.runtime.transaction import TransactionSession
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper.input_age import UnreadAgeReader
from attributary.consumers.sweeper.process import Sweeper, SweeperSettings
from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from attributary.producers.records import Touchpoint
from attributary.schemas.access import Principals, Right, process_of, rights
from attributary.schemas.topics import COMMANDS, RESULTS, TOUCHPOINTS, catalogue, dead_letter_topics
from tests.factories.samples import codec, sale
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import PATIENCE_SECONDS, PipelineUnderTest, Publisher, wait_until
from tests.fixtures.secured_broker import AUDIENCE, ISSUER, PASSWORD, SecuredBroker
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_httpserver import HTTPServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "trainer")
RIGHTS = rights(catalogue(), dead_letter_topics(), Principals())
USERS = sorted({right.principal.removeprefix("User:") for right in RIGHTS})
READERS = {process_of(group): group for topic in catalogue() for group in topic.groups}
NEEDED = [right for right in RIGHTS if right.is_needed and right.principal.removeprefix("User:attributary-") in READERS]


def rule(right: Right) -> Rule:
    return Rule(right.principal, right.kind, right.name, right.operation, right.is_prefix)


def settings(environment: Mapping[str, str]) -> KafkaSettings:
    return KafkaSettings.model_validate(environment)


@pytest.fixture(scope="module")
def admin(secured_broker: SecuredBroker) -> AclsAdmin:
    return AclsAdmin(settings({"KAFKA_BOOTSTRAP_SERVERS": secured_broker.plain}))


@pytest.fixture(scope="module")
def broker_with_rights(secured_broker: SecuredBroker, admin: AclsAdmin) -> SecuredBroker:
    secured_broker.add_users(USERS)
    change(admin, *map(rule, RIGHTS))
    return secured_broker


def change(admin: AclsAdmin, *rules: Rule, remove: bool = False) -> None:
    """Add rules or take them away, and wait until the broker knows: a moment after it has confirmed."""
    verb = AclVerb.TOO_MUCH if remove else AclVerb.ADD
    assert len(admin.apply([AclAction(verb, each) for each in rules], remove=remove)) == len(rules)

    def is_known() -> bool:
        there = set(rules) & set(admin.describe())
        return not there if remove else there == set(rules)

    wait_until(is_known, "the broker does not know of the change")


def run(broker: SecuredBroker, *arguments: str) -> tuple[int, list[list[str]]]:
    """Run a command as the administrator; returns exit code and words by line."""
    ran = CliRunner().invoke(app, arguments, env={"KAFKA_BOOTSTRAP_SERVERS": broker.plain})
    return ran.exit_code, [line.split() for line in ran.output.splitlines()]


def test_acls_apply_adds_what_is_missing_once_and_removes_only_what_is_ours(
    secured_broker: SecuredBroker, admin: AclsAdmin
) -> None:
    code, lines = run(secured_broker, "acls", "plan", "--check")
    assert (code, {line[0] for line in lines}, len(lines)) == (1, {"add"}, len(RIGHTS))
    assert run(secured_broker, "acls", "apply")[1][-1] == [str(len(RIGHTS)), "changes", "made"]
    wait_until(lambda: run(secured_broker, "acls", "plan", "--check")[0] == 0, "the broker does not know of the rights")
    assert run(secured_broker, "acls", "apply")[1] == [["0", "changes", "made"]]
    assert run(secured_broker, "acls", "plan", "--check")[0] == 0
    too_much = Rule("User:attributary-auditor", "topic", COMMANDS, "WRITE")
    foreign = Rule("User:somebody", "topic", "attr", "READ", is_prefix=True)
    unrelated = Rule("User:somebody", "topic", "orders", "READ")
    change(admin, too_much, foreign, unrelated)
    code, lines = run(secured_broker, "acls", "plan", "--check")
    changed = [" ".join(line) for line in lines if line[0] != "ok"]
    assert code == 1
    assert changed == [
        f"too much User:attributary-auditor WRITE on topic {COMMANDS}",
        "foreign User:somebody READ on topic attr*",
    ]
    assert run(secured_broker, "acls", "apply", "--remove")[1][1] == ["1", "change", "made"]
    wait_until(lambda: too_much not in admin.describe(), "it is still there")
    found = set(admin.describe())
    assert {foreign, unrelated} <= found
    denial = Rule("User:*", "topic", RESULTS, "READ", is_denial=True)
    change(admin, denial)
    code, lines = run(secured_broker, "acls", "plan", "--check")
    assert (code, [line for line in lines if line[0] == "denies"]) == (
        1, [["denies", "User:*", "READ", "on", "topic", RESULTS]]
    )  # fmt: skip
    change(admin, denial, foreign, unrelated, remove=True)


class SecuredPublisher(Publisher):
    """Publishes as the principal of a service."""

    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._producer = Producer({**self.config, "enable.idempotence": True, "partitioner": "murmur2_random"})


@pytest.mark.postgres
def test_the_whole_pipeline_runs_with_each_process_having_its_own_rights_alone(
    broker_with_rights: SecuredBroker, database: str, tmp_path: Path
) -> None:
    broker = broker_with_rights
    pipeline = PipelineUnderTest(broker.plain, database, tmp_path)
    try:
        for stage in STAGES:
            pipeline.start(stage, **broker.scram(f"attributary-{stage}"))
        SecuredPublisher.config = settings(broker.scram("attributary-publisher")).client_config()
        publisher = SecuredPublisher(broker.sasl)
        events = traffic(400, 60)
        publish(publisher, events)
        findings = pipeline.check(publisher.acknowledged)
        assert findings.conversions == 60
        # Another right than its own: the auditor reads no commands.
        pipeline.start("attributor", instance="1", **broker.scram("attributary-auditor"))
        code, log = pipeline.ended("attributor-1")
        assert (code, log.splitlines()[-1]) == (
            78,
            f"attributor: {AccessRefused('User:attributary-auditor', 'READ', f'topic {COMMANDS}')}",
        )
        assert pipeline.stop() == dict.fromkeys(STAGES, 0)
    finally:
        pipeline.stop()
    subscriber = settings(broker.scram("attributary-subscriber")).client_config()
    consumer = Consumer(subscriber | {"group.id": "subscriber.shop", "auto.offset.reset": "earliest"})
    consumer.subscribe([RESULTS])
    until = time.monotonic() + PATIENCE_SECONDS
    while not (got := consumer.consume(1, 1.0)) and time.monotonic() < until:
        pass
    consumer.close()
    assert [message.error() for message in got] == [None]


class SilentStage:
    """Reads and writes what the catalogue says of a process, and does nothing."""

    max_records = 100

    def __init__(self, name: str) -> None:
        self.name, self.group = name, READERS[name]
        self.topics = tuple(topic.name for topic in catalogue() if self.group in topic.groups)
        self.output_topics = tuple(topic.name for topic in catalogue() if name in topic.writers)

    def handle(self, _batch: Sequence[Any]) -> Outcome:
        return Outcome()

    def stored_positions(self, _partitions: object) -> dict[tuple[str, int], int]:
        return {}

    def is_ready(self) -> bool:
        return True

    def close(self) -> None: ...


def refusal_of(run_it: Callable[[], object]) -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        run_it()
    assert caught.value.exit_code == 78
    return caught.value


def run_loop(broker: SecuredBroker, name: str) -> None:
    """Run a stage until it refuses to go on, in this process."""
    process = ProcessSettings.model_validate({"ATTRIBUTION_FIRST_START": "earliest"})
    stage: Any = SilentStage(name)
    loop = ConsumerLoop(stage, settings(broker.scram(f"attributary-{name}")), process, Heartbeat(lambda: True))
    watchdog = threading.Timer(PATIENCE_SECONDS, loop.stop)
    watchdog.start()
    try:
        loop.run()
    finally:
        watchdog.cancel()


@pytest.fixture
def without(admin: AclsAdmin) -> Iterator[Callable[[Right], None]]:
    """Take a right away until the end of the test."""
    taken: list[Rule] = []

    def take(right: Right) -> None:
        taken.append(rule(right))
        change(admin, rule(right), remove=True)

    yield take
    change(admin, *taken)


@pytest.mark.parametrize("right", NEEDED, ids=lambda right: f"{right.principal[17:]}-{right.operation}-{right.name}")
def test_each_missing_right_ends_its_process_and_is_named(
    broker_with_rights: SecuredBroker, without: Callable[[Right], None], right: Right
) -> None:
    without(right)
    refused = refusal_of(lambda: run_loop(broker_with_rights, right.principal.removeprefix("User:attributary-")))
    kind = right.kind.replace("_", " ")
    name = f"{right.name}0" if right.is_prefix else right.name
    assert (refused.principal, refused.operation, refused.resource) == (
        right.principal,
        right.operation,
        f"{kind} {name}",
    )


SWEEPERS = [right for right in RIGHTS if right.principal == "User:attributary-sweeper" and right.operation != "WRITE"]


@pytest.mark.parametrize("right", SWEEPERS, ids=lambda right: f"{right.operation}-{right.name}")
def test_each_missing_right_ends_the_sweeper_and_is_named(
    broker_with_rights: SecuredBroker, without: Callable[[Right], None], right: Right
) -> None:
    reader = UnreadAgeReader(settings(broker_with_rights.scram("attributary-sweeper")))
    try:
        assert set(reader.oldest({})) == {"attribution.stitcher", "attribution.attributor", "attribution.auditor"}
        without(right)
        until = time.monotonic() + PATIENCE_SECONDS

        def ask() -> None:
            while time.monotonic() < until:
                reader.oldest({})

        refused = refusal_of(ask)
    finally:
        reader.close()
    assert (refused.principal, refused.operation) == (right.principal, right.operation)
    assert refused.resource == f"{right.kind} {right.name}"


@pytest.mark.postgres
def test_a_sweeper_that_may_not_write_commands_stops_and_loses_none(
    broker_with_rights: SecuredBroker, without: Callable[[Right], None], database: str
) -> None:
    without(Right("User:attributary-sweeper", "topic", COMMANDS, "WRITE"))
    kafka = settings(broker_with_rights.scram("attributary-sweeper"))
    session, reader = StoreSession(database, "tests"), UnreadAgeReader(kafka)
    sweeper = Sweeper(
        SweeperSettings(),
        LookbackPolicy.parse(DEFAULT_POLICY),
        codec(),
        session,
        (reader, Producer(kafka.client_config())),
    )
    with InProcess(database) as stages:
        stages.stitch(sale("c1"))
    with psycopg.connect(database) as connection:  # owed for so long that it is asked for again
        connection.execute("DELETE FROM attribution_positions")
        connection.execute("UPDATE attribution_conversions SET versioned_at = versioned_at - interval '5 minutes'")
    refused = refusal_of(sweeper.sweep_once)
    assert refused.resource == f"topic {COMMANDS}"
    assert refused.operation == "WRITE"
    reader.close()
    session.close()


def test_a_right_that_is_taken_while_a_stage_runs_stops_it_before_anything_is_committed(
    broker_with_rights: SecuredBroker, without: Callable[[Right], None]
) -> None:
    kafka = settings(broker_with_rights.scram("attributary-attributor"))
    name = f"{READERS['attributor']}-0"
    session = TransactionSession(kafka, name, "attributor")
    session.open()
    consumer = Consumer(kafka.client_config() | {"group.id": READERS["attributor"]})
    without(Right("User:attributary-attributor", "topic", RESULTS, "WRITE"))
    batch = [Outbound(RESULTS, b"k", b"v")], [TopicPartition(COMMANDS, 0, 0)], consumer.consumer_group_metadata()
    refused = refusal_of(lambda: session.commit(*batch))
    consumer.close()
    assert (refused.operation, refused.resource) == ("WRITE", f"topic {RESULTS}")


def test_a_publisher_without_a_right_is_told_before_the_first_record(
    broker_with_rights: SecuredBroker, without: Callable[[Right], None]
) -> None:
    without(Right("User:attributary-publisher", "topic", TOUCHPOINTS, "WRITE"))
    publisher = settings(broker_with_rights.scram("attributary-publisher"))
    refused = refusal_of(lambda: require_topics(publisher))
    assert (refused.operation, refused.resource) == ("WRITE", f"topic {TOUCHPOINTS}")


def allowed_topics(environment: Mapping[str, str]) -> set[str]:
    """The topics of which a client may know."""
    kafka = settings(environment)
    check_reachable(kafka, PATIENCE_SECONDS)
    return set(AdminClient(kafka.client_config()).list_topics(timeout=PATIENCE_SECONDS).topics)


def test_a_client_certificate_makes_a_principal(secured_broker: SecuredBroker, admin: AclsAdmin) -> None:
    own = secured_broker.authority.sign("shop")
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": secured_broker.mutual,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CA_LOCATION": str(secured_broker.authority.certificate),
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(own.certificate),
        "KAFKA_SSL_KEY_LOCATION": str(own.key),
    }
    assert allowed_topics(environment) == set()
    right = Rule("User:CN=shop", "topic", TOUCHPOINTS, "WRITE")
    change(admin, right)
    assert allowed_topics(environment) == {TOUCHPOINTS}
    change(admin, right, remove=True)
    nobody = {name: value for name, value in environment.items() if "CERTIFICATE" not in name and "KEY" not in name}
    with pytest.raises(ConfigError, match=r"KAFKA_SECURITY_PROTOCOL|KAFKA_SSL"):
        check_reachable(settings(nobody))


def test_an_oauth_token_makes_a_principal(
    secured_broker: SecuredBroker, admin: AclsAdmin, httpserver: HTTPServer
) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    numbers = key.public_key().public_numbers()
    width = (numbers.n.bit_length() + 7) // 8
    public = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "e": b64(numbers.e.to_bytes(3)),
              "n": b64(numbers.n.to_bytes(width))}  # fmt: skip
    secured_broker.jwks.write_text(json.dumps({"keys": [public]}))
    now = int(time.time())
    claims = {"sub": "shop-service", "aud": AUDIENCE, "iss": ISSUER, "iat": now, "exp": now + 600, "scope": "events"}
    signed = ".".join(b64(json.dumps(each).encode()) for each in ({"alg": "RS256", "kid": "1", "typ": "JWT"}, claims))
    token = f"{signed}.{b64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    httpserver.expect_request("/token", method="POST").respond_with_json(
        {"access_token": token, "token_type": "Bearer", "expires_in": 600}
    )
    change(admin, Rule("User:shop-service", "topic", TOUCHPOINTS, "WRITE"))
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": secured_broker.sasl,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SSL_CA_LOCATION": str(secured_broker.authority.certificate),
        "KAFKA_OAUTH_TOKEN_URL": httpserver.url_for("/token"),
        "KAFKA_OAUTH_CLIENT_ID": "shop",
        "KAFKA_OAUTH_CLIENT_SECRET": PASSWORD,
        "KAFKA_OAUTH_SCOPE": "events",
    }
    assert allowed_topics(environment) == {TOUCHPOINTS}
    config = settings(environment).client_config()
    bootstrap = config.pop("bootstrap.servers")
    with AttributaryProducer(ProducerConfig(bootstrap=bootstrap, kafka=config, default_tenant="acme")) as producer:
        producer.publish(Touchpoint(channel="email", platform="web", anonymous_id="a1", occurred_at=now * 1_000_000))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("KAFKA_SASL_PASSWORD", "wrong", "KAFKA_SASL_PASSWORD"),
        ("KAFKA_SASL_USERNAME", "nobody", "KAFKA_SASL_PASSWORD"),
        ("KAFKA_SSL_CA_LOCATION", "", "KAFKA_SSL_CA_LOCATION"),
    ],
)
def test_refused_credentials_are_a_setting_and_counted(
    broker_with_rights: SecuredBroker, variable: str, value: str, named: str
) -> None:
    environment = {**broker_with_rights.scram("attributary-stitcher"), variable: value}
    kafka = settings({name: each for name, each in environment.items() if each})
    stage: Any = SilentStage("stitcher")
    before = refusals()
    loop = ConsumerLoop(stage, kafka, ProcessSettings(), Heartbeat(lambda: True))
    with pytest.raises(ConfigError, match=named) as caught:
        loop.run()
    assert caught.value.exit_code == 78
    assert refusals() > before


def refusals() -> float:
    return sum(
        sample.value
        for family in metrics.kafka_refusals.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels["kind"] in {"authentication", "tls"}
    )
