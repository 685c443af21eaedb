"""The settings of one webhook address: who may deliver to it, and how its deliveries become records.

Invariant: a source that could be built has a tenant, a provider, secrets that are not empty, and options that its
provider knows, each of its type. Secrets are in no ``repr`` and no error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from attributary.schemas.limits import MINOR_UNIT_MICROS, is_tenant

from .payload import IpPolicy
from .signatures import TOLERANCE_SECONDS, is_public, standard_key

Provider = Literal["shopify", "stripe", "woocommerce", "standard", "signed_json", "meta_leads", "google_leads"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_PATH = re.compile(r"[A-Za-z0-9_-]{8,100}")
_SHORTEST_SECRET = 8


class SourceError(ValueError):
    """A source cannot be used; the text names it, the setting and the rule, never a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopifyOptions:
    """How orders of a Shopify shop become conversions.

    Attributes:
        shop_domain: host of the shop's pages; with it the landing path becomes ``event_source_url``.
        purchase_topic: the one topic that is the purchase.
        basis: the money that counts, for purchases and refunds alike: the shop's currency, or the customer's.
        currency: the shop's currency; without it a refund that lists no lines may not be readable.
        measure: what of an order is its value: the total, or without shipping, without tax, without both (subtotal).
        taxes_included: prices of the shop include taxes; needed for refunds that are read from their lines.
        restate_on_update: orders/updated sets the value anew, for shops that edit orders.
    """

    shop_domain: str = ""
    purchase_topic: Literal["orders/paid", "orders/create"] = "orders/paid"
    basis: Literal["shop_money", "presentment_money"] = "shop_money"
    currency: str = ""
    measure: Literal["total", "subtotal", "without_tax", "without_shipping"] = "total"
    taxes_included: bool = False
    restate_on_update: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeOptions:
    """How payments at Stripe become conversions.

    Attributes:
        purchase: the one kind of event that is the purchase; one payment fires three or four.
        refunds: ``refund``: one record a refund object; ``charge``: the cumulative sum of ``charge.refunded``, for
            webhooks pinned to an API version before 2024-10-28. Never both.
        disputes: ``lost``: a dispute that was closed as lost is a refund.
        allow_test: record what was paid in test mode.
        client_reference: what ``client_reference_id`` is: the page's anonymous id, or your user id.
    """

    purchase: Literal["payment_intent", "checkout", "charge", "invoice"] = "payment_intent"
    refunds: Literal["refund", "charge"] = "refund"
    disputes: Literal["ignore", "lost"] = "ignore"
    allow_test: bool = False
    client_reference: Literal["anonymous_id", "user_id"] = "anonymous_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class WooCommerceOptions:
    """How orders of a WooCommerce shop become conversions.

    Attributes:
        paid_statuses: the statuses of an order that is paid.
        restate_on_update: every later delivery of a paid order sets the value anew, for shops that edit orders.
    """

    paid_statuses: tuple[str, ...] = ("processing", "completed")
    restate_on_update: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadOptions:
    """What a lead is worth.

    Attributes:
        verify_token: the token that Meta's set-up call must bring.
        value: of a lead, in units, for example ``25.00``; empty for none.
        currency: of the values.
        form_values: value by form id, where forms differ.
        allow_test: record leads of the provider's test tool.
    """

    verify_token: str = field(default="", repr=False)
    value: str = ""
    currency: str = ""
    form_values: Mapping[str, str] = field(default_factory=dict)
    allow_test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedJsonOptions:
    """How JSON of any other sender is signed, and which file maps it (docs/how-to/webhooks.md).

    Attributes:
        mapping: path of the mapping file.
        signature_header: header of the signature; not used with ``provider: standard``.
        signature_prefix: text before the signature, for example ``sha256=``.
        encoding: of the signature.
        timestamp_header: header of the seconds (or milliseconds) since 1970 that were signed too.
        signature_key: name of the signature in a header of pairs, such as ``s`` in ``t=1,s=ab``.
        timestamp_key: name of the time in it.
        signed: what was signed; ``{body}``, with a time ``{timestamp}.{body}``, unless the sender does it otherwise.
    """

    mapping: str = ""
    signature_header: str = "x-signature"
    signature_prefix: str = ""
    encoding: Literal["hex", "base64"] = "hex"
    timestamp_header: str = ""
    signature_key: str = ""
    timestamp_key: str = ""
    signed: str = ""


Options = ShopifyOptions | StripeOptions | WooCommerceOptions | LeadOptions | SignedJsonOptions
_OPTIONS: Mapping[str, type[Options]] = {
    "shopify": ShopifyOptions,
    "stripe": StripeOptions,
    "woocommerce": WooCommerceOptions,
    "meta_leads": LeadOptions,
    "google_leads": LeadOptions,
    "standard": SignedJsonOptions,
    "signed_json": SignedJsonOptions,
}
Chosen = TypeVar("Chosen", ShopifyOptions, StripeOptions, WooCommerceOptions, LeadOptions, SignedJsonOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSource:
    """One webhook address.

    Attributes:
        name: short name of the source; it stands in event ids, so it must not change.
        provider: who delivers.
        tenant_id: the tenant of all its records.
        secrets: signing secrets; two during a rotation.
        path_id: last part of the address, random; empty: the source is not served.
        options: of the provider.
        tolerance_seconds: how far a signed timestamp may be from now, both ways.
        ip: what is kept of a buyer's address.
        consent: consent per purpose of everybody in these deliveries; None: not known.
        guest_key: key of the hash that makes a user id of a guest's e-mail address; empty: guests have none.
    """

    name: str
    provider: Provider
    tenant_id: str
    secrets: tuple[str, ...] = field(repr=False)
    path_id: str = field(default="", repr=False)
    options: Options = field(default_factory=ShopifyOptions)
    tolerance_seconds: float = TOLERANCE_SECONDS
    ip: IpPolicy = "cut"
    consent: Mapping[str, bool] | None = None
    guest_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise SourceError(f"webhook source {self.name[:40]!r}: name must be 1 to 40 of a-z, 0-9 and dash")
        if self.provider not in PROVIDERS:
            raise self._error("provider", f"must be one of {', '.join(PROVIDERS)}")
        if not is_tenant(self.tenant_id):
            raise self._error("tenant", "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
        if self.path_id and _PATH.fullmatch(self.path_id) is None:
            raise self._error("path", "must be 8 to 100 letters, digits, dashes and underscores")
        if not self.secrets or any(len(secret.strip()) < _SHORTEST_SECRET for secret in self.secrets):
            raise self._error("secrets", f"at least one, each of {_SHORTEST_SECRET} characters or more")
        if self.provider == "standard" and not all(map(standard_key, self.secrets)):
            raise self._error("secrets", "must be base64, with or without whsec_ before it, or a public key whpk_...")
        if self.provider == "standard" and any(map(is_public, self.secrets)) and not find_spec("cryptography"):
            raise self._error("secrets", "whpk_... needs cryptography: pip install 'attributary[collect]'")
        if not 0 < self.tolerance_seconds <= 3600:
            raise self._error("tolerance_seconds", "must be above 0 and at most 3600")
        if not isinstance(self.options, _OPTIONS[self.provider]):
            raise self._error("options", f"are those of another provider than {self.provider}")

    def option(self, kind: type[Chosen]) -> Chosen:
        """Return the options, which are of the provider's kind."""
        assert isinstance(self.options, kind)  # noqa: S101 - checked when the source was built
        return self.options

    def _error(self, setting: str, rule: str) -> SourceError:
        return SourceError(f"webhook source {self.name}: {setting} {rule}")


def read_options(name: str, provider: str, given: Mapping[str, Any]) -> Options:
    """Return the options of a provider from a settings file.

    Raises:
        SourceError: one is not known, or of another type.
    """
    kind = _OPTIONS.get(provider)
    if kind is None:
        raise SourceError(f"webhook source {name}: provider must be one of {', '.join(PROVIDERS)}")
    known = {each.name: each for each in fields(kind)}
    if unknown := sorted(str(key) for key in given if key not in known):
        raise SourceError(f"webhook source {name}: {unknown[0]} is not known; {provider} has {', '.join(known)}")
    types = get_type_hints(kind)
    read = {key: _read(f"webhook source {name}: {key}", value, types[key]) for key, value in given.items()}
    options = kind(**read)
    currency = getattr(options, "currency", "")
    if currency and currency not in MINOR_UNIT_MICROS:
        raise SourceError(f"webhook source {name}: currency must be an upper-case ISO 4217 code")
    if isinstance(options, SignedJsonOptions):
        _check_signed_json(name, options)
    return options


def _check_signed_json(name: str, options: SignedJsonOptions) -> None:
    if not options.mapping:
        raise SourceError(f"webhook source {name}: mapping must name a file")
    if options.timestamp_key and not options.signature_key:
        raise SourceError(f"webhook source {name}: timestamp_key needs signature_key beside it")
    has_time = bool(options.timestamp_header or options.timestamp_key)
    if options.signed and (options.signed.count("{body}") != 1 or ("{timestamp}" in options.signed) is not has_time):
        rule = "must hold {body} once, and {timestamp} when the sender signs a time, only then"
        raise SourceError(f"webhook source {name}: signed {rule}")


def _read(setting: str, value: Any, kind: Any) -> Any:
    """Return a value of YAML in the type that the option has."""
    origin = get_origin(kind)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise SourceError(f"{setting} must be one of {', '.join(get_args(kind))}")
    if origin is tuple and isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    if origin is Mapping and isinstance(value, dict):
        return {str(part): str(text) for part, text in value.items()}
    if origin is None and isinstance(value, kind):
        return value
    wanted = {bool: "true or false", str: "a text", tuple: "a list of texts"}.get(origin or kind, "a mapping")
    raise SourceError(f"{setting} must be {wanted}")
