"""Attributary: marketing touchpoints and conversions in, attribution results out, every unit of revenue accounted for.

The public names, all importable from here:

- publish: ``AttributaryProducer``, ``ProducerConfig``, the records ``Touchpoint``, ``Conversion`` (with ``Item`` and
  ``UserData``), ``IdentityLink`` and ``Spend`` (with ``SpendLine``); ``MemoryTransport`` for tests without Kafka
- read a landing page: ``parse_landing``, ``touchpoint_from_landing``
- subscribe: ``Codec``, ``expand_result``, ``roll_up_result``
- send to ad platforms without the pipeline: ``MetaConversionsClient``, ``GA4Client``, ``Receipt``
- analyse a table of journeys: ``analyze``
- errors: ``ProducerError`` and its four kinds, ``EncodeError``, ``DecodeError``, ``RegistryUnavailableError``,
  ``TableError``

Invariant: importing this package imports nothing else. A name is imported when it is first asked for, so that a
publishing service never loads numpy, the database driver or the consumers.

The packages below this one are links to the folders at the top of the repository; the wheel holds them as
``attributary.attribution_core``, ``attributary.schemas``, ``attributary.producers`` and ``attributary.consumers``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.analyze import analyze
    from attributary.attribution_core.tables.cells import TableError
    from attributary.consumers.destinations.clients import GA4Client, MetaConversionsClient, Receipt
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.config import ProducerConfig
    from attributary.producers.errors import BufferFull, DeliveryFailed, FlushTimeout, InvalidRecord, ProducerError
    from attributary.producers.landing import parse_landing, touchpoint_from_landing
    from attributary.producers.memory_transport import MemoryTransport
    from attributary.producers.records import Conversion, IdentityLink, Item, Touchpoint, UserData
    from attributary.producers.spend import Spend, SpendLine
    from attributary.schemas.codec import Codec, DecodeError, EncodeError, RegistryUnavailableError
    from attributary.schemas.result_layout import expand_result, roll_up_result

    __version__: str

__all__ = [
    "AttributaryProducer",
    "BufferFull",
    "Codec",
    "Conversion",
    "DecodeError",
    "DeliveryFailed",
    "EncodeError",
    "FlushTimeout",
    "GA4Client",
    "IdentityLink",
    "InvalidRecord",
    "Item",
    "MemoryTransport",
    "MetaConversionsClient",
    "ProducerConfig",
    "ProducerError",
    "Receipt",
    "RegistryUnavailableError",
    "Spend",
    "SpendLine",
    "TableError",
    "Touchpoint",
    "UserData",
    "__version__",
    "analyze",
    "expand_result",
    "parse_landing",
    "roll_up_result",
    "touchpoint_from_landing",
]

_MODULES = {
    "attribution_core.analysis.analyze": ("analyze",),
    "attribution_core.tables.cells": ("TableError",),
    "consumers.destinations.clients": ("GA4Client", "MetaConversionsClient", "Receipt"),
    "producers.client": ("AttributaryProducer",),
    "producers.config": ("ProducerConfig",),
    "producers.errors": ("BufferFull", "DeliveryFailed", "FlushTimeout", "InvalidRecord", "ProducerError"),
    "producers.landing": ("parse_landing", "touchpoint_from_landing"),
    "producers.memory_transport": ("MemoryTransport",),
    "producers.records": ("Conversion", "IdentityLink", "Item", "Touchpoint", "UserData"),
    "producers.spend": ("Spend", "SpendLine"),
    "schemas.codec": ("Codec", "DecodeError", "EncodeError", "RegistryUnavailableError"),
    "schemas.result_layout": ("expand_result", "roll_up_result"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # slow, and rarely asked for

    try:
        return version("attributary")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _installed_version()
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
