"""What librdkafka says, in words for people: why no broker is reached, and which setting it refuses.

Invariant: no value of a setting is ever shown: librdkafka quotes values, and one of them may be a password.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from .errors import EXIT_DEPENDENCY_DOWN, ConfigError, Fatal

if TYPE_CHECKING:
    from .settings import KafkaSettings

REACH_SECONDS = 5.0
_SLICE_SECONDS = 1.0
_SERVER = re.compile(
    r"((PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])(:(?P<port>\d{1,5}))?"
)

_PROPERTY = re.compile(r'property "([a-z0-9._]{1,60})"')
_VARIABLES = {
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl.mechanism": "KAFKA_SASL_MECHANISM",
    "sasl.username": "KAFKA_SASL_USERNAME",
    "sasl.password": "KAFKA_SASL_PASSWORD",
    "ssl.ca.location": "KAFKA_SSL_CA_LOCATION",
}
_ALL_DOWN = "brokers are down"  # that it hangs up is told to nobody but the log
# librdkafka's words -> what they mean, the worst last: the last one that was heard explains the failure.
_REASONS = (
    (_ALL_DOWN, "what listens there hangs up: compare KAFKA_SECURITY_PROTOCOL with the listener"),
    ("timed out", "no answer"),
    ("Connection refused", "nothing listens there"),
    ("No route to host", "no route to that host"),
    ("Network is unreachable", "the network is unreachable"),
    ("Invalid response", "what listens there is no Kafka"),
    ("resolve", "the name of the host is unknown"),
    ("SSL", "TLS cannot be agreed on: compare KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_CA_LOCATION with the listener"),
    ("uthentication", "user or password are refused: KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SASL_MECHANISM"),
)


def refused_setting(error: KafkaException, extra: frozenset[str]) -> ConfigError:
    """Return the error of a client that could not be made.

    Args:
        error: as librdkafka raised it.
        extra: names of the settings that KAFKA_EXTRA holds.
    """
    text = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else str(error)
    found = _PROPERTY.search(text)
    name = found.group(1) if found else ""
    if not name:
        name = next((key for key in (*extra, *_VARIABLES) if key in text), "")
    variable = "KAFKA_EXTRA" if name in extra or name not in _VARIABLES else _VARIABLES[name]
    # A name that librdkafka does not know may be a value that stands in the wrong place: it is not shown either.
    is_known = name in _VARIABLES or (name in extra and "No such" not in text)
    shown = f" {name}" if is_known else ""
    return ConfigError(variable, f"librdkafka refuses the setting{shown} or its value")


def check_reachable(kafka: KafkaSettings, seconds: float = REACH_SECONDS) -> None:
    """Ask the brokers for a sign of life, so that a command can say at once why there is none.

    Args:
        kafka: how to reach the brokers.
        seconds: how long to wait; less when every broker has refused.

    Raises:
        Fatal: no broker answers; the text says which were tried, why, and what to do (exit code 69).
        ConfigError: the brokers answer and refuse us, or a setting is wrong (exit code 78).
    """
    heard: list[str] = []
    config = {**kafka.client_config(), "log_level": 0, "error_cb": lambda error: heard.append(error.str())}
    admin = AdminClient(config)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            admin.list_topics(timeout=min(left, _SLICE_SECONDS))
        except KafkaException:
            admin.poll(0)
        else:
            return
        if _has_refused(heard):
            break
    raise _unreachable(kafka.bootstrap_servers, heard)


def _has_refused(heard: Sequence[str]) -> bool:
    """Tell whether every broker said no: then more time changes nothing."""
    reason = _reason(heard)
    return any(_ALL_DOWN in each for each in heard) and reason is not None and "hangs up" not in reason


def _reason(heard: Sequence[str]) -> str | None:
    return next((said for words, said in reversed(_REASONS) if any(words in each for each in heard)), None)


def _unreachable(servers: str, heard: Sequence[str]) -> Fatal:
    reason = _reason(heard) or "no answer"
    if "refused:" in reason or "TLS" in reason:
        variable = "KAFKA_SASL_PASSWORD" if "refused:" in reason else "KAFKA_SECURITY_PROTOCOL"
        return ConfigError(variable, f"{servers}: {reason}")
    return Fatal(
        f"no Kafka broker answers at {servers}: {reason}. Start it (on this machine: attributary up), or correct "
        "KAFKA_BOOTSTRAP_SERVERS.",
        EXIT_DEPENDENCY_DOWN,
    )


def check_servers(text: str) -> str:
    """Return a list of brokers as it is, if each is ``[PROTOCOL://]host[:port]``.

    Raises:
        ValueError: it is none; librdkafka would drop it, or take another port.
    """
    for each in text.split(","):
        found = _SERVER.fullmatch(each.strip())
        if found is None or not 0 < int(found["port"] or 9092) < 65_536:
            raise ValueError("must be host:port, several by commas, without a scheme such as http://")
    return text
