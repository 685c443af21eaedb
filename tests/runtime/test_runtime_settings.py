"""Settings: a missing or bad variable is named, its value never shown, secrets may come from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
from pydantic import Field, SecretStr

from attributary.consumers.adapters.policy_settings import IdentitySettings, PolicySettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.runtime.endpoints import kafka_exposure, postgres_exposure
from attributary.consumers.runtime.errors import EXIT_CONFIG, ConfigError
from attributary.consumers.runtime.settings import DatabaseSettings, KafkaSettings, ProcessSettings, Settings, load
from attributary.consumers.store.connection import check_dsn

if TYPE_CHECKING:
    from pathlib import Path

OURS = ("KAFKA_", "ATTRIBUTION_", "METRICS_", "DATABASE_", "SCHEMA_REGISTRY_", "LOG_LEVEL")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")


def refused(cls: type[Settings]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(cls)
    assert caught.value.exit_code == EXIT_CONFIG
    return caught.value


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    error = refused(KafkaSettings)
    assert (error.variable, error.rule) == ("KAFKA_BOOTSTRAP_SERVERS", "must be set")
    assert str(error) == "KAFKA_BOOTSTRAP_SERVERS: must be set"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    assert refused(KafkaSettings).rule == "must be set"
    monkeypatch.setenv("LOG_LEVEL", "")
    assert load(ProcessSettings).log_level == "info"


@pytest.mark.parametrize(
    ("cls", "variable", "value"),
    [
        (KafkaSettings, "KAFKA_SECURITY_PROTOCOL", "hunter2"),
        (KafkaSettings, "KAFKA_SASL_MECHANISM", "hunter2"),
        (KafkaSettings, "KAFKA_GROUP_PROTOCOL", "hunter2"),
        (KafkaSettings, "KAFKA_SESSION_TIMEOUT_MS", "hunter2"),
        (KafkaSettings, "KAFKA_SESSION_TIMEOUT_MS", "999"),
        (KafkaSettings, "KAFKA_TRANSACTION_TIMEOUT_MS", "-4711"),
        (KafkaSettings, "KAFKA_EXTRA", "hunter2"),
        (KafkaSettings, "KAFKA_EXTRA", '["hunter2"]'),
        (ProcessSettings, "ATTRIBUTION_ENVIRONMENT", "hunter2"),
        (ProcessSettings, "ATTRIBUTION_INSTANCE", "hunter 2"),
        (ProcessSettings, "ATTRIBUTION_FIRST_START", "hunter2"),
        (ProcessSettings, "ATTRIBUTION_BATCH_SIZE", "0"),
        (ProcessSettings, "ATTRIBUTION_LINGER_MS", "10001"),
        (ProcessSettings, "ATTRIBUTION_MAX_POISON_SHARE", "1.5"),
        (ProcessSettings, "ATTRIBUTION_GRACE_SECONDS", "hunter2"),
        (ProcessSettings, "METRICS_PORT", "65536"),
        (ProcessSettings, "LOG_LEVEL", "hunter2"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, cls: type[Settings], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = refused(cls)
    assert error.variable == variable
    assert error.rule
    if len(value) > 4:  # a number may be the bound that the rule names
        assert value not in str(error)


def test_a_variable_of_another_program_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "ENVIRONMENT", "INSTANCE", "EXTRA", "BATCH_SIZE", "environment", "url"):
        monkeypatch.setenv(name, "postgresql://somebody-else")
    assert load(ProcessSettings).instance == "0"
    assert KafkaSettings.load().extra == {}
    assert refused(DatabaseSettings).variable == "DATABASE_URL"


def test_the_transaction_ends_before_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_TRANSACTION_TIMEOUT_MS", "45000")
    error = refused(KafkaSettings)
    assert (error.variable, error.rule) == ("KAFKA_TRANSACTION_TIMEOUT_MS", "must be below KAFKA_SESSION_TIMEOUT_MS")


def test_a_consumer_may_be_silent_longer_than_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_MAX_POLL_INTERVAL_MS", "44999")
    error = refused(KafkaSettings)
    assert error.variable == "KAFKA_MAX_POLL_INTERVAL_MS"
    assert error.rule == "must not be below KAFKA_SESSION_TIMEOUT_MS"
    monkeypatch.setenv("KAFKA_GROUP_PROTOCOL", "consumer")  # its session is the broker's
    assert KafkaSettings.load().max_poll_interval_ms == 44_999


def test_a_sasl_protocol_needs_a_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    assert refused(KafkaSettings).variable == "KAFKA_SASL_MECHANISM"


PEM = "-----BEGIN CERTIFICATE-----"
SCRAM = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
         "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "hunter2"}  # fmt: skip
OAUTH = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
         "KAFKA_OAUTH_TOKEN_URL": "https://login.example.com/token", "KAFKA_OAUTH_CLIENT_ID": "c",
         "KAFKA_OAUTH_CLIENT_SECRET": "hunter2"}  # fmt: skip
MUTUAL = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_LOCATION": PEM, "KAFKA_SSL_KEY_LOCATION": PEM}


@pytest.mark.parametrize(
    ("good", "change", "named"),
    [
        (SCRAM, {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SECURITY_PROTOCOL"),
        (SCRAM, {"KAFKA_SECURITY_PROTOCOL": ""}, "KAFKA_SECURITY_PROTOCOL"),
        (SCRAM, {"KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM"),
        (SCRAM, {"KAFKA_SASL_USERNAME": ""}, "KAFKA_SASL_USERNAME"),
        (SCRAM, {"KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD"),
        (SCRAM, {"KAFKA_OAUTH_TOKEN_URL": "https://x/y"}, "KAFKA_OAUTH_TOKEN_URL"),
        (OAUTH, {"KAFKA_OAUTH_TOKEN_URL": ""}, "KAFKA_OAUTH_TOKEN_URL"),
        (OAUTH, {"KAFKA_OAUTH_TOKEN_URL": "http://login.example.com/token"}, "KAFKA_OAUTH_TOKEN_URL"),
        (OAUTH, {"KAFKA_OAUTH_CLIENT_ID": ""}, "KAFKA_OAUTH_CLIENT_ID"),
        (OAUTH, {"KAFKA_OAUTH_CLIENT_SECRET": ""}, "KAFKA_OAUTH_CLIENT_SECRET"),
        (OAUTH, {"KAFKA_SASL_USERNAME": "u"}, "KAFKA_SASL_USERNAME"),
        (MUTUAL, {"KAFKA_SSL_KEY_LOCATION": ""}, "KAFKA_SSL_KEY_LOCATION"),
        (MUTUAL, {"KAFKA_SSL_CERTIFICATE_LOCATION": ""}, "KAFKA_SSL_CERTIFICATE_LOCATION"),
        (MUTUAL, {"KAFKA_SECURITY_PROTOCOL": ""}, "KAFKA_SSL_CERTIFICATE_LOCATION"),
        (MUTUAL, {"KAFKA_SSL_KEY_LOCATION": "/nowhere/key.pem"}, "KAFKA_SSL_KEY_LOCATION"),
        (MUTUAL, {"KAFKA_SSL_CA_LOCATION": "no PEM"}, "KAFKA_SSL_CA_LOCATION"),
        ({}, {"KAFKA_SASL_PASSWORD": "hunter2"}, "KAFKA_SASL_PASSWORD"),
    ],
)
def test_credentials_that_cannot_work_together_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, good: dict[str, str], change: dict[str, str], named: str
) -> None:
    def put(variables: dict[str, str]) -> None:
        for variable, value in variables.items():
            if value in {PEM, "no PEM"}:
                file = tmp_path / variable
                file.write_text(value)
                monkeypatch.setenv(variable, str(file))
            else:
                monkeypatch.setenv(variable, value)

    put(good)
    load(KafkaSettings)  # right as it stands
    put(change)
    error = refused(KafkaSettings)
    assert error.variable == named
    assert "hunter2" not in str(error)


def test_what_kafka_extra_holds_counts_for_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in OAUTH.items():
        if "OAUTH_" not in variable:
            monkeypatch.setenv(variable, value)
    assert refused(KafkaSettings).variable == "KAFKA_OAUTH_TOKEN_URL"
    monkeypatch.setenv("KAFKA_EXTRA", '{"sasl.oauthbearer.config": "principal=me"}')
    assert load(KafkaSettings).client_config()["sasl.oauthbearer.config"] == "principal=me"


@pytest.mark.parametrize(
    ("servers", "protocol", "said"),
    [
        ("127.0.0.1:9092,localhost,[::1]:9092", "PLAINTEXT", None),
        ("127.0.0.1:9092,kafka:9092", "PLAINTEXT", "PLAINTEXT to kafka: events can be read on the way"),
        ("PLAINTEXT://[2001:db8::1]:9092", "PLAINTEXT", "PLAINTEXT to [2001:db8::1]: events can be read"),
        ("kafka:9092", "SASL_PLAINTEXT", "SASL_PLAINTEXT to kafka: events and the password can be read on the way"),
        ("kafka:9092", "SASL_SSL", None),
    ],
)
def test_events_that_others_can_read_on_their_way_are_told(
    monkeypatch: pytest.MonkeyPatch, servers: str, protocol: str, said: str | None
) -> None:
    for variable, value in (SCRAM if protocol.startswith("SASL") else {}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", protocol)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    found = kafka_exposure(load(KafkaSettings))
    assert (found is None) == (said is None)
    assert found is None or said is None or found[1].startswith(said)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://u@/db?host=/var/run", None),
        ("postgresql://u@127.0.0.1/db", None),
        ("postgresql://u@db.example.com/db?sslmode=verify-full", None),
        ("postgresql://u@db.example.com/db", "sslmode=prefer to db.example.com: rows may go unencrypted"),
        ("postgresql://u@127.0.0.1,db/db?sslmode=require", "sslmode=require to db: another server may answer"),
    ],
)
def test_rows_that_others_can_read_on_their_way_are_told(dsn: str, said: str | None) -> None:
    found = postgres_exposure(check_dsn(dsn))
    assert (found is None) == (said is None)
    assert found is None or said is None or found[1].startswith(said)


def test_what_the_clients_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "reader")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("KAFKA_EXTRA", '{"socket.keepalive.enable": true}')
    kafka = KafkaSettings.load()
    config = kafka.client_config()
    assert config["bootstrap.servers"] == "broker:9092"
    assert (config["sasl.password"], config["socket.keepalive.enable"]) == ("hunter2", True)
    assert "ssl.ca.location" not in config
    assert "hunter2" not in repr(kafka)


def test_a_secret_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://from-file/db\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(file))
    assert load(DatabaseSettings).url.get_secret_value() == "postgresql://from-file/db"
    monkeypatch.setenv("DATABASE_URL", "postgresql://direct/db")
    assert load(DatabaseSettings).url.get_secret_value() == "postgresql://direct/db"


def test_an_empty_file_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text(" \n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(file))
    error = refused(DatabaseSettings)
    assert (error.variable, error.rule) == ("DATABASE_URL", "must be set")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "very-secret-name"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DATABASE_URL_FILE", str(file))
    error = refused(DatabaseSettings)
    assert error.variable == "DATABASE_URL_FILE"
    assert "very-secret-name" not in str(error)


def test_a_rule_over_several_fields_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(Settings):
        number: Annotated[int, Field(alias="ATTRIBUTION_TEST_NUMBER")] = 1
        secret: Annotated[SecretStr | None, Field(alias="ATTRIBUTION_TEST_SECRET")] = None

    monkeypatch.setenv("ATTRIBUTION_TEST_NUMBER", "many")
    assert refused(Pair).variable == "ATTRIBUTION_TEST_NUMBER"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "the file cannot be read: No such file or directory"),
        ("windows: [", "is not YAML: see line 1"),
        ("- 1", "must hold a mapping"),
        ("lateness_days: 1\ninactivity_days: 1\nwindows: []", "windows need one entry"),
        ("lateness_days: -1\ninactivity_days: 1\nwindows: [{days: 1}]", "lateness_days must be"),
    ],
)
def test_a_bad_policy_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("ATTRIBUTION_POLICY_FILE", str(file))
    with pytest.raises(ConfigError, match="ATTRIBUTION_POLICY_FILE") as caught:
        load(PolicySettings).policy()
    assert said in str(caught.value)


def test_a_good_policy_file_and_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(PolicySettings).policy().version.startswith("default-")
    file = tmp_path / "policy.yaml"
    file.write_text("name: ours\nlateness_days: 1\ninactivity_days: 2\nwindows:\n  - days: 7\n")
    monkeypatch.setenv("ATTRIBUTION_POLICY_FILE", str(file))
    assert load(PolicySettings).policy().version.startswith("ours-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("refuse: [", "is not YAML: see line 1"),
        ("- a", "must hold a mapping"),
        ("block: {}", "block is not known"),
        ("refuse: [kiosk]", "refuse must hold lists of ids by tenant"),
        ("accept: {acme: [0]}", "accept.acme must be a list of texts"),
    ],
)
def test_a_bad_identities_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "identities.yaml"
    file.write_text(text)
    monkeypatch.setenv("ATTRIBUTION_IDENTITIES_FILE", str(file))
    with pytest.raises(ConfigError, match="ATTRIBUTION_IDENTITIES_FILE") as caught:
        load(IdentitySettings).rules()
    assert said in str(caught.value)


def test_a_good_identities_file_and_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(IdentitySettings).rules().broken("acme", "kiosk") is None
    file = tmp_path / "identities.yaml"
    file.write_text('refuse: {acme: [kiosk]}\naccept: {"*": [test]}\n')
    monkeypatch.setenv("ATTRIBUTION_IDENTITIES_FILE", str(file))
    rules = load(IdentitySettings).rules()
    assert rules.broken("acme", " Kiosk")
    assert rules.broken("other", "kiosk") is None
    assert rules.broken("other", "test") is None


def test_without_a_registry_the_codec_needs_none() -> None:
    codec = make_codec(load(RegistrySettings))
    link = {
        "event_id": "e", "tenant_id": "t", "anonymous_id": "a", "user_id": "u", "linked_at": 1, "source": None,
    }  # fmt: skip
    assert codec.encode("identity_link", link)[:2] == b"\xc3\x01"
