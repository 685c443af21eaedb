"""Access tokens of a destination's accounts: refreshed before they end, by one thread at a time, shared by accounts.

How a destination uses it: it has the method `grant(account)` (`UsesAccessTokens`), which gives a `RefreshTokenGrant` or
a `ServiceAccountGrant`, or None when the account's secret is a token by itself. The sender does the rest: it hands
`request` the account with the access token as its `secret`, so the destination writes "Bearer {account.secret}" as with
any other token; and when the platform answers 401, it takes a new token and sends the request once more.

Contract of `get` and `renew`: they return a token, or the `DeliveryResponse` that says why there is none, and never
raise for what the network, the platform or the folder of tokens does. `RETRY` and `THROTTLED` pass by themselves;
`ACCOUNT_STOPPED` needs a person (a revoked refresh token, a wrong client). Invariants:

- accounts with equal grants share one token, and while it is refreshed the other threads wait for that one answer;
- a token is refreshed when little of its life is left; when that fails and some is left, the old one is used on;
- after a failure the platform is not asked again for some seconds, however many threads come;
- a refresh token that the platform replaces is on the disk before its access token is used, where there is a folder;
- no token is in a log, an error or a metric.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import structlog

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.oauth2.grants import Token, read_token

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import Account
    from attributary.consumers.destinations.oauth2.grants import Grant
    from attributary.consumers.destinations.oauth2.token_files import TokenFiles
    from attributary.consumers.destinations.transport import Clock, Transport

_log = structlog.get_logger()

_MARGIN_SECONDS = 300.0  # of a token's life that are not used; of a short life a fifth
_MARGIN_SHARE = 0.2
_RETRY_SECONDS = 2.0  # between two tries of the token endpoint after a failure that passes
_WARN_SECONDS = 14 * 86_400.0
_REFUSED_SECONDS = 30.0  # after one that does not; below the minute after which a stopped account is tried again


@runtime_checkable
class UsesAccessTokens(Protocol):
    """A destination with accounts that have short-lived tokens."""

    def grant(self, account: Account) -> Grant | None:
        """Return how to get a token for an account; None: its secret is one by itself. Pure."""
        ...


class _Held(NamedTuple):
    """What is known of a grant; times are monotonic seconds."""

    token: Token | None = None
    ends_at: float = 0.0
    refresh_token: str | None = None
    failure: DeliveryResponse | None = None
    failed_until: float = 0.0


class AccessTokens:
    """The tokens of one destination.

    Args:
        destination: its name, for logs and metrics.
        transport: connections.
        clock: where time comes from.
        files: where refresh tokens that the platform replaces are kept; None: in memory only.
    """

    def __init__(self, destination: str, transport: Transport, clock: Clock, files: TokenFiles | None = None) -> None:
        self._destination = destination
        self._transport = transport
        self._clock = clock
        self._files = files
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._refresh_ends: dict[str, float] = {}
        self._is_warned = False

    @property
    def forgets(self) -> bool:
        """Tell whether the platform has replaced a refresh token by one that is kept in memory only."""
        return self._is_warned

    def get(self, grant: Grant) -> str | DeliveryResponse:
        """Return a token that is good for a while, refreshed if need be; or why there is none."""
        if (token := self._good(grant)) is not None:
            return token
        with self._lock_of(grant):
            # Another thread may have asked meanwhile.
            return self._good(grant) or self._refreshed(grant)

    def renew(self, grant: Grant, refused: str) -> str | DeliveryResponse:
        """Return a token in the place of one that the platform refused; or why there is none.

        Args:
            grant: of the account.
            refused: the token; when another thread has replaced it already, that one is returned.
        """
        with self._lock_of(grant):
            held = self._held.get(grant.key, _Held())
            if held.token is not None and held.token.text == refused:
                self._held[grant.key] = held._replace(token=None)
            return self._good(grant) or self._refreshed(grant)

    def _lock_of(self, grant: Grant) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(grant.key, threading.Lock())

    def _good(self, grant: Grant) -> str | None:
        """Return the token while enough of its life is left."""
        held = self._held.get(grant.key)
        if held is None or held.token is None:
            return None
        margin = min(_MARGIN_SECONDS, held.token.life_seconds * _MARGIN_SHARE)
        now = self._clock.monotonic()
        if now < held.ends_at - margin:
            return held.token.text
        # The last try to replace it failed a moment ago: what is left of its life is used.
        return held.token.text if now < min(held.ends_at, held.failed_until) else None

    def _refreshed(self, grant: Grant) -> str | DeliveryResponse:
        """Ask the platform; the caller holds the grant's lock."""
        held, now = self._held.get(grant.key, _Held()), self._clock.monotonic()
        if held.failure is not None and now < held.failed_until:
            return held.failure
        found = self._asked(grant, held)
        now = self._clock.monotonic()
        if isinstance(found, Token):
            metrics.forward_token_refreshes.labels(self._destination, "refreshed").inc()
            self._held[grant.key] = _Held(found, now + found.life_seconds, found.refresh_token)
            if found.refresh_life_seconds is not None:
                self._watch(grant, found.refresh_life_seconds)
            return found.text
        is_stopped = found.response_class is ResponseClass.ACCOUNT_STOPPED
        metrics.forward_token_refreshes.labels(self._destination, "refused" if is_stopped else "failed").inc()
        log = _log.error if is_stopped else _log.warning
        log("no new access token", destination=self._destination, grant=grant.key, code=found.code, why=found.reason)
        wait = max(found.wait_seconds, _REFUSED_SECONDS if is_stopped else _RETRY_SECONDS)
        self._held[grant.key] = held._replace(failure=found, failed_until=now + wait)
        return self._good(grant) or found

    def _watch(self, grant: Grant, left: float) -> None:
        """Show when the first refresh token ends, and warn of one that does soon."""
        with self._lock:
            self._refresh_ends[grant.key] = self._clock.monotonic() + left
        gauge = metrics.forward_refresh_token_left_seconds.labels(self._destination)
        gauge.set_function(lambda: min(list(self._refresh_ends.values())) - self._clock.monotonic())
        if left < _WARN_SECONDS:
            _log.warning(
                "the refresh token ends soon: authorise again, set the new one and restart the forwarder",
                destination=self._destination,
                grant=grant.key,
                days=int(left // 86_400),
            )

    def _asked(self, grant: Grant, held: _Held) -> Token | DeliveryResponse:
        """Send the grant to the token endpoint, with the newest refresh token that is known."""
        files = self._files if grant.refresh_token else None
        try:
            with files.held(grant.key) if files else contextlib.nullcontext():
                newest = (files.read(grant.key) if files else None) or held.refresh_token or grant.refresh_token
                found = self._sent(grant, newest)
                if not isinstance(found, Token):
                    return found
                if found.refresh_token and found.refresh_token != newest:
                    self._keep(grant, found.refresh_token)
                return found._replace(refresh_token=found.refresh_token or newest)
        except OSError as error:
            reason = f"the folder of FORWARD_TOKEN_DIR cannot be used: {type(error).__name__}"
            return DeliveryResponse(ResponseClass.RETRY, "token/folder", reason)

    def _sent(self, grant: Grant, refresh_token: str | None) -> Token | DeliveryResponse:
        try:
            request = grant.request(self._clock.now_micros() // 1_000_000, refresh_token)
        except ValueError as error:
            return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, "token/key", str(error))
        return read_token(self._transport.send(request), grant)

    def _keep(self, grant: Grant, refresh_token: str) -> None:
        if self._files is not None:
            self._files.write(grant.key, refresh_token, self._destination)
            return
        if not self._is_warned:
            self._is_warned = True
            _log.warning(
                "the platform replaces the refresh token, and it is kept in memory only: set FORWARD_TOKEN_DIR",
                destination=self._destination,
            )


def with_token(account: Account, token: str) -> Account:
    """Return an account with an access token as its secret."""
    return replace(account, secret=token)
