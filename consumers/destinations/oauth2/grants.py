"""OAuth 2 grants: what is asked of a platform's token endpoint, and what its answers mean.

Contract: pure. A destination that uses short-lived tokens gives a grant for an account; `AccessTokens` sends it. Two
grants: a refresh token (RFC 6749, section 6), and a service account (`service_account`). Errors are classed by
section 5.2: whatever needs a person stops the account, whatever passes by itself is tried again. Invariants: no text
holds a secret, a token, or a text of the platform; the key of a grant tells it from others without showing it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlencode

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, HttpRequest, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import HttpResponse

DEFAULT_LIFE_SECONDS = 3_600.0  # of an access token where the answer names none (RFC 6749 only recommends it)
_MAX_LIFE_SECONDS = 400 * 86_400.0
FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
_TEMPORARY = frozenset(("temporarily_unavailable", "server_error", "slow_down", "internal_failure"))
_STOPPED = {
    "invalid_client": "the client id or the client secret is wrong",
    "unauthorized_client": "the client may not use this grant: its registration at the platform is wrong",
    "unsupported_grant_type": "the token endpoint does not know this grant: is its address right?",
    "invalid_request": "the token endpoint does not understand the request: is its address right?",
    "invalid_scope": "the authorisation lacks the scope that the API needs: authorise again",
    "access_denied": "the authorisation was refused: authorise again",
    "interaction_required": "the platform wants a person to sign in: authorise again",
    "consent_required": "the platform wants a person to agree: authorise again",
    "login_required": "the platform wants a person to sign in: authorise again",
    "org_internal": "the client is for users of its own organisation only",
    "admin_policy_enforced": "the organisation's policy forbids this scope",
    "deleted_client": "the client does not exist any more",
}


class Token(NamedTuple):
    """What a token endpoint gave.

    Attributes:
        text: the access token.
        life_seconds: for how long it is good, from now on.
        refresh_token: a new one that takes the place of the old; None: the old one stays.
        refresh_life_seconds: for how long the refresh token is good; None: not said.
    """

    text: str
    life_seconds: float
    refresh_token: str | None = None
    refresh_life_seconds: float | None = None

    def __repr__(self) -> str:
        return f"Token({self.life_seconds:.0f} s)"


class Grant(Protocol):
    """How to get an access token for an account."""

    @property
    def key(self) -> str:
        """Tell this grant from others without showing a secret; accounts with one key share their token."""
        ...

    @property
    def refresh_token(self) -> str | None:
        """The refresh token of the settings; None when the grant has none."""
        ...

    @property
    def refused(self) -> str:
        """What to tell people when the platform refuses the grant itself."""
        ...

    def request(self, now_seconds: int, refresh_token: str | None) -> HttpRequest:
        """Build the request to the token endpoint.

        Args:
            now_seconds: seconds since 1970-01-01 UTC.
            refresh_token: the newest that is known; None: the grant has none.

        Raises:
            ValueError: no request can be made of the key; the text has no part of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class RefreshTokenGrant:
    """A person's authorisation: a refresh token, with the client that it was given to.

    Attributes:
        token_url: the platform's token endpoint.
        client_id: of the application.
        client_secret: of the application; empty: a public client has none.
        refresh_token: as the settings have it.
        scope: asked for again; empty: what was agreed to.
    """

    token_url: str = field(repr=False)
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scope: str = ""

    @property
    def key(self) -> str:
        """Tell this grant from others without showing a secret."""
        return digest_of("refresh", self.token_url, self.client_id, self.refresh_token, self.scope)

    @property
    def refused(self) -> str:
        """What to tell people when the platform refuses the grant itself."""
        return "the refresh token is revoked or has ended: authorise again, set the new one and restart the forwarder"

    def request(self, now_seconds: int, refresh_token: str | None) -> HttpRequest:  # noqa: ARG002  # the protocol's
        """Build the request to the token endpoint."""
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token or self.refresh_token,
            "client_id": self.client_id,
        }
        fields |= {"client_secret": self.client_secret} if self.client_secret else {}
        fields |= {"scope": self.scope} if self.scope else {}
        return HttpRequest(self.token_url, urlencode(fields).encode("ascii"), FORM)


def read_token(response: HttpResponse, grant: Grant) -> Token | DeliveryResponse:
    """Say what the answer of a token endpoint means: a token, or why there is none. Nothing was sent to the API.

    Args:
        response: what came back.
        grant: what was asked for.
    """
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict):
        document = {}
    if response.status == 200 and (token := _token(document)):
        return token
    error = document.get("error")
    wait = retry_after_seconds(response.headers)
    if isinstance(error, str):
        if error in _TEMPORARY or response.status >= 500:
            known = error if error in _TEMPORARY else str(response.status)
            return DeliveryResponse(ResponseClass.RETRY, f"token/{known}", "the token endpoint is busy", wait)
        if error == "invalid_grant":
            return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, "token/invalid_grant", grant.refused)
        if reason := _STOPPED.get(error):
            return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, f"token/{error}", reason)
        if response.status in {400, 401, 403}:
            reason = "the token endpoint refuses the authorisation: authorise again"
            return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, f"token/{response.status}", reason)
    found = by_status(response, "the token endpoint")
    # Nothing has gone to the API, so nothing can be in doubt; and what a proxy refuses is no event.
    kind = found.response_class
    if kind in {ResponseClass.AMBIGUOUS, ResponseClass.REJECTED}:
        kind = ResponseClass.RETRY
    return DeliveryResponse(kind, f"token/{found.code}", f"no access token: {found.reason}", found.wait_seconds)


def _token(document: dict[str, Any]) -> Token | None:
    text, life = document.get("access_token"), _seconds(document.get("expires_in"))
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text or " " in text:
        return None
    fresh = document.get("refresh_token")
    fresh = fresh if isinstance(fresh, str) and fresh and fresh.isascii() and fresh.isprintable() else None
    # LinkedIn and others say how long the refresh token lives; under two names.
    names = ("refresh_token_expires_in", "refresh_expires_in")
    ends = next((found for name in names if (found := _seconds(document.get(name)))), None)
    return Token(text, life or DEFAULT_LIFE_SECONDS, fresh, ends)


def _seconds(value: Any) -> float | None:
    """Return a positive number of seconds; some endpoints send it as a text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return min(float(value), _MAX_LIFE_SECONDS)


def digest_of(*parts: str) -> str:
    """Tell secrets from others without showing them: 24 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
