"""A stand-in for an OAuth 2 token endpoint, as Google, LinkedIn and Microsoft have one.

Contract: a form POST with a refresh token or a signed assertion gives an access token (RFC 6749, sections 5 and 6; RFC
7523). Tokens end by the stand-in's own clock. With `rotates` each refresh token is good once; its use a second time
revokes what came of it, as strict platforms do. Stand-ins of platforms ask `is_live` about the token of a call.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Reply, json_reply

if TYPE_CHECKING:
    from attributary.local.fakes.faults import Fault
    from attributary.local.fakes.server import Call

_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FORM = "application/x-www-form-urlencoded"
_MAX_SKEW_SECONDS = 60


_ANSWERS = {
    "busy": (503, {"error": "temporarily_unavailable"}),
    "invalid_grant": (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
    "invalid_scope": (400, {"error": "invalid_scope", "error_description": "Some requested scopes were invalid."}),
    "invalid_client": (401, {"error": "invalid_client", "error_description": "The OAuth client was not found."}),
}


class OAuthFake(StandIn):
    """A token endpoint.

    Args:
        client: id and secret that are good.
        refresh_token: the first one.
        public_key: PEM of a service account; empty: no assertions.
        life_seconds: of an access token.
        rotates: every answer brings a new refresh token, and the old one is used up.
    """

    own_kinds = frozenset((*_ANSWERS, "html_200", "no_expiry", "no_token"))

    def __init__(
        self,
        *,
        client: tuple[str, str] = ("client-1", "client-secret"),
        refresh_token: str = "refresh-1",  # noqa: S107  # a made-up one
        public_key: str = "",
        life_seconds: int = 3_600,
        rotates: bool = False,
    ) -> None:
        super().__init__()
        self.client = client
        self.life_seconds = life_seconds
        self.refresh_life_seconds: int | None = None
        self.most_at_once = 0
        self._at_once = 0
        self._rotates = rotates
        self._public_key = public_key
        self._lock = threading.Lock()
        self._refresh = {refresh_token}
        self._used: set[str] = set()
        self._ends: dict[str, float] = {}
        self._numbers = itertools.count(2)

    def is_live(self, token: str) -> bool:
        """Return whether an access token was given out here and has not ended."""
        return self._ends.get(token, 0.0) > self.now

    def end_all(self) -> None:
        """End every access token before its time."""
        with self._lock:
            self._ends.clear()

    def revoke(self) -> None:
        """Take the authorisation back: no refresh token is good any more."""
        with self._lock:
            self._refresh.clear()

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return super().answer(call)
        finally:
            with self._lock:
                self._at_once -= 1

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before a token is made."""
        if fault.kind in _ANSWERS:
            return json_reply(*_ANSWERS[fault.kind])
        if fault.kind == "html_200":
            return Reply(200, b"<html><body>Sign in</body></html>", {"content-type": "text/html"})
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse what is no form."""
        if call.method != "POST" or not call.headers.get("content-type", "").startswith(_FORM):
            return _error("invalid_request", "a form is needed")
        return None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Give a token for a grant."""
        form = {name: values[0] for name, values in parse_qs(call.body.decode("utf-8", "replace")).items()}
        kind = fault.kind if fault else ""
        with self._lock:
            if form.get("grant_type") == "refresh_token":
                found = self._by_refresh_token(form)
            elif form.get("grant_type") == _JWT:
                found = self._by_assertion(call, form.get("assertion", ""))
            else:
                found = _error("unsupported_grant_type", "no such grant")
            if isinstance(found, Reply):
                return found
            document = found
            token = f"access-{next(self._numbers)}"
            self._ends[token] = self.now + self.life_seconds
        document |= {"access_token": token, "token_type": "Bearer"}
        document |= {} if kind == "no_expiry" else {"expires_in": self.life_seconds}
        if kind == "no_token":
            del document["access_token"]
        return json_reply(200, document)

    def _by_refresh_token(self, form: dict[str, str]) -> dict[str, Any] | Reply:
        if (form.get("client_id"), form.get("client_secret", "")) != self.client:
            return json_reply(401, {"error": "invalid_client", "error_description": "Unauthorized"})
        given = form.get("refresh_token", "")
        if given in self._used:
            self._refresh.clear()
        if given not in self._refresh:
            return _error("invalid_grant", f"Token has been expired or revoked: {given}")
        document: dict[str, Any] = {}
        if self._rotates:
            self._used.add(given)
            self._refresh = {f"refresh-{next(self._numbers)}"}
            document["refresh_token"] = next(iter(self._refresh))
        if self.refresh_life_seconds is not None:
            document["refresh_token_expires_in"] = self.refresh_life_seconds
        return document

    def _by_assertion(self, call: Call, assertion: str) -> dict[str, Any] | Reply:
        claims = _claims(assertion, self._public_key)
        if claims is None:
            return _error("invalid_grant", "Invalid JWT Signature.")
        begins, ends = (claims.get(name) for name in ("iat", "exp"))
        if not isinstance(begins, int) or not isinstance(ends, int) or ends - begins > 3_600:
            return _error("invalid_grant", "Invalid JWT: iat and exp are needed, an hour apart at most")
        if not begins - _MAX_SKEW_SECONDS <= self.now < ends:
            return _error("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if not claims.get("iss") or not claims.get("scope"):
            return _error("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        if not str(claims.get("aud", "")).endswith(call.path):
            return _error("invalid_grant", "Invalid JWT: Failed audience check.")
        return {}

    def events(self) -> dict[str, Any]:
        """Give what was asked, for the admin surface."""
        live = sum(map(self.is_live, self._ends))
        return {"calls": self.received.calls, "most_at_once": self.most_at_once, "live": live}


def _error(code: str, description: str) -> Reply:
    return json_reply(400, {"error": code, "error_description": description})


def _claims(assertion: str, public_key: str) -> dict[str, Any] | None:
    """Return the claims of an assertion with a good signature, None for any other."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # optional
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    signed, _, signature = assertion.rpartition(".")
    try:
        key = load_pem_public_key(public_key.encode())
        if not isinstance(key, RSAPublicKey):
            return None
        key.verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
    except (ValueError, InvalidSignature):
        return None
    return claims if isinstance(claims, dict) and header.get("alg") == "RS256" else None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
