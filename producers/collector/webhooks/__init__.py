"""Webhooks: deliveries of shops, payment providers and lead forms become records.

::

    receive        signature, then mapping, of one delivery: (bytes, headers, settings, now) -> WebhookOutcome
    signatures     HMAC schemes, each over raw bytes and in constant time
    source         settings of one address; settings_file reads them from YAML
    shopify, stripe, woocommerce, leads, signed_json   one mapping each; shopify_money and stripe_money count
    payload        strict reading of JSON
    outcome        accepted, ignored, unmapped, refused, set_up

Invariant: everything here is a pure function of its arguments and knows nothing of HTTP, Kafka or a clock; `routes`
alone joins it to the collector.
"""

from __future__ import annotations

from .letters import UnmappedFolderError
from .outcome import LeftOut, WebhookOutcome, WebhookRecord
from .receive import WebhookReceiver, meta_challenge
from .settings_file import read_sources
from .source import (
    LeadOptions,
    ShopifyOptions,
    SignedJsonOptions,
    SourceError,
    StripeOptions,
    WebhookSource,
    WooCommerceOptions,
)

__all__ = [
    "LeadOptions",
    "LeftOut",
    "ShopifyOptions",
    "SignedJsonOptions",
    "SourceError",
    "StripeOptions",
    "UnmappedFolderError",
    "WebhookOutcome",
    "WebhookReceiver",
    "WebhookRecord",
    "WebhookSource",
    "WooCommerceOptions",
    "meta_challenge",
    "read_sources",
]
