"""A `SchemaResolver` over a Confluent Schema Registry (extra ``registry``).

Invariant: what the registry does not have is `LookupError`; a registry that does not answer, or not to us, is
`RegistryUnavailableError`. Nothing is registered unless it was asked for. The library is imported on `connect` only.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from .codec import RegistryUnavailableError
from .topics import topic_of

# 404: no such id, subject or schema; 409: not compatible; 422: not a schema that the registry takes.
_NOT_THERE = frozenset({404, 409, 422})
_SECONDS = 5.0


class RegistryExtraMissingError(ImportError):
    """The extra ``registry`` is not installed."""


def subject_of(name: str) -> str:
    """Return the subject of a record's schema by TopicNameStrategy, the registry's default."""
    return f"{topic_of(name)}-value"


class ConfluentRegistry:
    """Looks schemas up in a registry. The client caches; the codec asks once an id.

    Args:
        client: has ``get_schema``, ``lookup_schema`` and ``register_schema`` of confluent_kafka's client.
        make_schema: makes the library's schema object of a JSON text.
        failures: exceptions of the transport, when nothing answers.
        register: register a schema that is not there yet. Off: only look up.
        place: host and port of the registry, for messages.
    """

    def __init__(
        self,
        client: Any,
        make_schema: Callable[[str], Any],
        failures: tuple[type[Exception], ...] = (OSError,),
        *,
        register: bool = False,
        place: str = "",
    ) -> None:
        self._client, self._make_schema, self._failures, self._register = client, make_schema, failures, register
        self._name = f"the schema registry at {place}" if place else "the schema registry"

    def schema(self, schema_id: int) -> str:
        """Return the JSON text of a schema; see `SchemaResolver`."""
        return str(self._ask(f"schema id {schema_id}", lambda: self._client.get_schema(schema_id)).schema_str)

    def schema_id(self, name: str, schema: str) -> int:
        """Return the id of a record's schema in its subject; see `SchemaResolver`."""
        subject, wanted = subject_of(name), self._make_schema(schema)
        if self._register:
            return int(self._ask(subject, lambda: self._client.register_schema(subject, wanted)))
        return int(self._ask(subject, lambda: self._client.lookup_schema(subject, wanted)).schema_id)

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._failures as error:
            status = getattr(error, "http_status_code", None)
            if status in _NOT_THERE:
                raise LookupError(f"{what}: the registry refused with {status}") from None
            told = f"answered {status}" if status else f"does not answer ({type(error).__name__})"
            raise RegistryUnavailableError(f"{self._name} {told}") from None


def connect(settings: Mapping[str, Any], *, register: bool = False) -> ConfluentRegistry:
    """Return a resolver over a registry; nothing is sent before the first record.

    Args:
        settings: those of ``confluent_kafka.schema_registry.SchemaRegistryClient``: ``url`` and, where needed,
            ``basic.auth.user.info``, ``ssl.ca.location``, ...; ``timeout`` is 5 seconds unless set.
        register: whether `Codec.encode` may register schemas; better left to a deployment step.

    Raises:
        RegistryExtraMissingError: when the extra is not installed.
    """
    try:
        library = importlib.import_module("confluent_kafka.schema_registry")
    except ImportError as error:
        raise RegistryExtraMissingError(
            f"a schema registry needs the extra: pip install 'attributary[registry]' (missing: {error.name})"
        ) from None
    # The client lets its HTTP library's errors through; which library it is depends on its version.
    transports = [importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name)]
    failures = (library.SchemaRegistryError, OSError, *(transport.TransportError for transport in transports))
    client = library.SchemaRegistryClient.new_client({"timeout": _SECONDS, **settings})
    return ConfluentRegistry(
        client, lambda text: library.Schema(text, "AVRO"), failures, register=register, place=_place(settings["url"])
    )


def _place(url: str) -> str:
    """Return host and port of an address, without user and password."""
    return str(url).partition("://")[2].partition("/")[0].rpartition("@")[2]
