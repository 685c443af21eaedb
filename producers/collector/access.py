"""Who may send: the key of a request, its origin, its rate.

Contract: ``Access.authorize`` returns the key or raises ``Refusal``: 401 without a live key, 403 for an origin that is
not on the key's list, for a scope that it lacks and for a secret key in a page, 429 above a rate. Cheapest first; the
body has not been looked at. The tenant is the key's.
"""

from __future__ import annotations

import base64
import binascii
import math
import time

from starlette.requests import Request

from attributary.producers.collector import metrics
from attributary.producers.collector.addresses import Address, limit_name
from attributary.producers.collector.answers import Refusal
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.keys import Key, KeyRing
from attributary.producers.collector.rate_limit import TokenBuckets
from attributary.producers.collector.visits import address_of

QUERY_NAME = "k"
_REALM = {"WWW-Authenticate": 'Bearer realm="attributary"'}


class Access:
    """Keys and rates of one process.

    Args:
        keys: the keys in use.
        config: allowances.
    """

    def __init__(self, keys: KeyRing, config: CollectorConfig) -> None:
        self.keys = keys
        self._config = config
        self._by_key = TokenBuckets(config.requests_per_second)
        self._by_address = TokenBuckets(config.requests_per_second_ip)

    def authorize(self, request: Request, scope: str, address: Address | None) -> Key:
        """Return the key of a request; see the contract of the module.

        Args:
            request: the request; only line and headers are read.
            scope: what the key must allow: event, conversion, read or jobs.
            address: the client's address; not looked at for a secret key.
        """
        key = self._allowed(request, scope)
        self._limit(key, address)
        return key

    def admit(self, request: Request, scope: str) -> tuple[Key, Address | None]:
        """Return the key of a request as ``authorize`` does, and the client's address.

        The address is None for a secret key: a server's own says nothing about a visitor.
        """
        key = self._allowed(request, scope)
        address = None if key.is_secret else address_of(request, self._config)
        self._limit(key, address)
        return key, address

    def _allowed(self, request: Request, scope: str) -> Key:
        key = self._key(request)
        self._check_origin(request, key)
        if scope not in key.scopes:
            raise refused(403, "key", f"The key does not have the scope {scope}.")
        return key

    def _limit(self, key: Key, address: Address | None) -> None:
        now = time.monotonic()
        wait = self._by_key.take(key.key_id, now, key.requests_per_second)
        if not wait and not key.is_secret:
            wait = self._by_address.take(limit_name(address), now)
        if wait:
            seconds = max(1, math.ceil(wait))
            raise refused(429, "rate", "Too many requests with this key or address.", {"Retry-After": str(seconds)})

    def _key(self, request: Request) -> Key:
        in_header = _token_of_header(request.headers.get("authorization", ""))
        in_query = request.query_params.get(QUERY_NAME)
        if in_query is not None and in_query.startswith("sk_"):
            raise refused(401, "key", "A secret key must not stand in a URL; revoke it and use the header.", _REALM)
        if in_header and in_query and in_header != in_query:
            raise refused(401, "key", "The header and the URL name two keys.", _REALM)
        token = in_header or in_query
        if not token:
            raise refused(401, "key", "A key is needed: Authorization: Bearer wk_... or sk_...", _REALM)
        key = self.keys.find(token, time.time())
        if key is None:
            raise refused(401, "key", "The key is not known, or no longer in force.", _REALM)
        return key

    def _check_origin(self, request: Request, key: Key) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            return
        if key.is_secret:
            raise refused(403, "origin", "A secret key must not be used by a page.")
        if origin not in key.origins:
            raise refused(403, "origin", "The origin is not on the key's list.")


def refused(status: int, reason: str, detail: str, headers: dict[str, str] | None = None) -> Refusal:
    """Count a refusal and return it."""
    metrics.rejected.labels(reason).inc()
    return Refusal(status, detail, headers)


def _token_of_header(value: str) -> str | None:
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if scheme.lower() == "basic":  # as Segment's HTTP API: the key is the user name, the password is empty
        try:
            decoded = base64.b64decode(rest.strip(), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return decoded.partition(":")[0] or None
    return None
