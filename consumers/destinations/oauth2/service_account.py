"""A service account as an OAuth 2 grant: its private key signs an assertion (RFC 7523, RS256), no person is asked.

Contract: pure. Needs the package cryptography (`attributary[oauth]`), which is imported when a key is used. Invariants:
no text holds a part of the key; an assertion is good for an hour at most.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from attributary.consumers.destinations.destination import HttpRequest
from attributary.consumers.destinations.oauth2.grants import FORM, digest_of
from attributary.consumers.destinations.wire_format import to_json

_ASSERTION_SECONDS = 3_600  # the longest that Google takes
_SKEW_SECONDS = 30  # our clock may be ahead of the platform's


@dataclass(frozen=True, slots=True)
class ServiceAccountGrant:
    """A service account: an assertion that its private key signs (RS256).

    Attributes:
        token_url: the platform's token endpoint, which is the assertion's audience as well.
        client_email: of the service account.
        private_key: PEM.
        key_id: of the key; empty: not said.
        scope: what is asked for.
        audience: of the assertion; empty: the token endpoint.
    """

    token_url: str = field(repr=False)
    client_email: str
    private_key: str = field(repr=False)
    key_id: str = field(repr=False)
    scope: str
    audience: str = ""

    @property
    def key(self) -> str:
        """Tell this grant from others without showing a secret."""
        return digest_of("assertion", self.token_url, self.client_email, self.private_key, self.key_id, self.scope)

    @property
    def refresh_token(self) -> str | None:
        """None: there is none."""
        return None

    @property
    def refused(self) -> str:
        """What to tell people when the platform refuses the grant itself."""
        return "the service account's key is refused: is it deleted or disabled, or is this machine's clock wrong?"

    def request(self, now_seconds: int, refresh_token: str | None) -> HttpRequest:  # noqa: ARG002  # the protocol's
        """Build the request to the token endpoint.

        Raises:
            ValueError: the private key cannot be read.
        """
        header = {"alg": "RS256", "typ": "JWT"} | ({"kid": self.key_id} if self.key_id else {})
        claims = {
            "iss": self.client_email,
            "scope": self.scope,
            "aud": self.audience or self.token_url,
            "iat": now_seconds - _SKEW_SECONDS,
            "exp": now_seconds - _SKEW_SECONDS + _ASSERTION_SECONDS,
        }
        signed = b".".join(_base64url(to_json(part)) for part in (header, claims))
        assertion = signed + b"." + _base64url(_signature(self.private_key, signed))
        fields = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion.decode("ascii")}
        return HttpRequest(self.token_url, urlencode(fields).encode("ascii"), FORM)


def service_account_fields(text: str) -> dict[str, str]:
    """Read a service account's key file as Google gives it out.

    Args:
        text: JSON with client_email, private_key, private_key_id and token_uri.

    Raises:
        ValueError: it is no such key; the text is the rule, without a value.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("type") != "service_account":
        raise ValueError("must be a service account's key: JSON with type, client_email and private_key")
    fields: dict[str, str] = {}
    for name in ("client_email", "private_key", "private_key_id", "token_uri"):
        value = document.get(name, "")
        if not isinstance(value, str) or (name in {"client_email", "private_key"} and not value):
            raise ValueError(f"must be a service account's key: {name} is missing or no text")
        fields[name] = value
    _private_key(fields["private_key"])
    return fields


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _private_key(pem: str) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415  # optional
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    except ImportError:
        raise ValueError("needs the package cryptography: pip install 'attributary[oauth]'") from None
    try:
        key = load_pem_private_key(pem.encode("ascii"), None)
    except (ValueError, TypeError):
        raise ValueError("must be a service account's key: private_key is no PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("must be a service account's key: private_key is no RSA key")  # noqa: TRY004  # a rule
    return key


def _signature(pem: str, data: bytes) -> bytes:
    key = _private_key(pem)
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415  # optional
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    signature: bytes = key.sign(data, PKCS1v15(), SHA256())
    return signature
