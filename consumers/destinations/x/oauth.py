"""OAuth 1.0a, HMAC-SHA1: the Authorization header of a request with a JSON body.

Contract: pure. Only the `oauth_` parameters and the query are signed, not the body. Source: RFC 5849, sections 3.4 and
3.5.1; X, "Creating a signature", which has the vector of the test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class OAuthKeys(NamedTuple):
    """The four keys of an application and a user."""

    consumer_key: str
    consumer_secret: str
    token: str
    token_secret: str


def signature(method: str, url: str, parameters: Mapping[str, str], keys: OAuthKeys) -> str:
    """Return the signature in base64.

    Args:
        method: of the request, in capitals.
        url: with its query.
        parameters: that are signed beside the query: those of OAuth, and of a form.
        keys: of application and user.
    """
    parts = urlsplit(url)
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()]
    encoded = sorted((_escape(name), _escape(value)) for name, value in pairs)
    joined = "&".join(f"{name}={value}" for name, value in encoded)
    place = f"{parts.scheme.lower()}://{_host(parts.hostname or '', parts.scheme.lower(), parts.port)}{parts.path}"
    text = f"{method}&{_escape(place)}&{_escape(joined)}"
    key = f"{_escape(keys.consumer_secret)}&{_escape(keys.token_secret)}"
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha1).digest()).decode()


def authorization(method: str, url: str, keys: OAuthKeys, now_seconds: int, nonce: str) -> str:
    """Return the Authorization header.

    Args:
        method: of the request, in capitals.
        url: with its query.
        keys: of application and user.
        now_seconds: seconds since 1970-01-01 UTC; X refuses a clock that is five minutes off.
        nonce: used once.
    """
    given = {
        "oauth_consumer_key": keys.consumer_key,
        "oauth_nonce": nonce,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(now_seconds),
        "oauth_token": keys.token,
        "oauth_version": "1.0",
    }
    given["oauth_signature"] = signature(method, url, given, keys)
    return "OAuth " + ", ".join(f'{name}="{_escape(value)}"' for name, value in sorted(given.items()))


def _escape(text: str) -> str:
    return quote(text, safe="-._~")


def _host(host: str, scheme: str, port: int | None) -> str:
    return host if port is None or port == {"https": 443, "http": 80}.get(scheme) else f"{host}:{port}"
