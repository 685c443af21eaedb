"""``GET pixel.gif``: one touchpoint from a mail or a page without script; ``GET redirect``: one click on the way.

Pixel: the answer is always the GIF with 200, whatever became of the record; the reason is counted. A HEAD and a
prefetch make no record. A call has no id of its own, so each is an event: a proxy that loads a picture twice opens it
twice. Parameters are names of the touchpoint's fields; ``k`` is a write key.

Redirect: to a host on the key's list, or to a target that is signed (``sign_target``), never anywhere else. The target
is parsed once, the parsed form is what the browser gets, and its query is not touched.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from attributary.producers.collector import metrics
from attributary.producers.collector.access import QUERY_NAME
from attributary.producers.collector.answers import SECURITY_HEADERS, Refusal
from attributary.producers.collector.mapping import NoEvent, RecordMapper
from attributary.producers.collector.payloads import Rejected, TouchpointBody
from attributary.producers.collector.visits import visit_of
from attributary.producers.records import new_event_id
from attributary.producers.sites import ascii_host

if TYPE_CHECKING:
    from attributary.producers.collector.app import Collector

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
WAIT_SECONDS = 1.0
"""So long a person waits for the picture or the next page; then the record is spooled."""
_FIELDS = frozenset(TouchpointBody.__struct_fields__) - {
    "type", "event_id", "occurred_at", "sent_at", "user_agent", "click_ids", "country", "is_bot", "properties",
    "consent", "engagement_seconds",
}  # fmt: skip
_LONGEST_TARGET = 4_096
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_PORTS = {"http": 80, "https": 443}


class Pixel:
    """The two GET endpoints.

    Args:
        collector: settings and parts.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def pixel(self, request: Request) -> Response:
        """Answer with the picture; record an opened mail, or whatever the parameters say."""
        named = {name: value for name, value in request.query_params.items() if name in _FIELDS and value}
        if "landing_url" not in named:
            named = {"interaction": "open", "channel": "email", "platform": "email"} | named
        await self._record(request, named)
        return Response(GIF, 200, {**SECURITY_HEADERS, "Content-Type": "image/gif"})

    async def redirect(self, request: Request) -> Response:
        """Lead to the target after recording the click.

        Raises:
            Refusal: 400 when there is no target, or none to which this key or signature may lead.
        """
        query = request.query_params
        target = parse_target(query.get("to", ""))
        key = self._collector.access.keys.find(query.get(QUERY_NAME, ""), time.time())
        host = _host_and_port(target)
        if not (key is not None and host in key.redirect_hosts):
            secret = self._collector.config.redirect_secret
            if not is_signed(query.get("to", ""), query.get("exp", ""), query.get("sig", ""), secret, time.time()):
                raise Refusal(400, "The target is neither on the key's list nor signed, or the signature has expired.")
        named = {name: value for name, value in query.items() if name in _FIELDS - {"landing_url"} and value}
        named = {"landing_url": target, "interaction": "click"} | named
        if (referrer := request.headers.get("referer")) and "referrer" not in named:
            named["referrer"] = referrer
        await self._record(request, named)
        headers = {**SECURITY_HEADERS, "Location": target, "Referrer-Policy": "no-referrer-when-downgrade"}
        return Response(b"", 302, headers)

    async def _record(self, request: Request, named: dict[str, str]) -> None:
        """Record one touchpoint; whatever ends it is counted, the caller answers the same."""
        if request.method != "GET" or _is_prefetch(request):
            metrics.unseen.labels("prefetch").inc()
            return
        collector = self._collector
        try:
            key, address = collector.access.admit(request, "event")
            visit = visit_of(request, key, address, collector.config)
            fields: dict[str, Any] = {"event_id": new_event_id(), "occurred_at": visit.now_micros, **named}
            body = TouchpointBody(**fields)
            submission = RecordMapper(visit).touchpoint_of(body)
        except Refusal:
            metrics.unseen.labels("key").inc()
            return
        except (Rejected, NoEvent):
            metrics.unseen.labels("rule").inc()
            return
        [answer] = await collector.intake.take([submission], key.tenant, seconds=WAIT_SECONDS)
        metrics.records.labels("touchpoint", answer.outcome).inc()
        if answer.outcome not in {"accepted", "spooled"}:
            metrics.unseen.labels("rule" if answer.outcome == "rejected" else "retry").inc()
        elif submission.fields.get("is_bot"):
            metrics.robots.inc()


def parse_target(text: str) -> str:
    """Return the target of a redirect in the form in which a browser gets it.

    Raises:
        Refusal: 400 for anything but an absolute http(s) URL without user, control characters or backslashes.
    """
    refusal = Refusal(400, "The parameter to must be an absolute http or https URL, percent-encoded.")
    if not text or len(text) > _LONGEST_TARGET or _UNSAFE.search(text):
        raise refusal
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise refusal from None
    host = ascii_host(parts.hostname or "")
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not text.lower().startswith(f"{scheme}://") or "@" in parts.netloc:
        raise refusal
    if not _HOST.fullmatch(host) or not text.isascii():
        raise refusal
    shown = host if port in {None, _PORTS[scheme]} else f"{host}:{port}"
    _, _, rest = text.partition("://")
    return f"{scheme}://{shown}{rest[len(parts.netloc) :] or '/'}"


def sign_target(target: str, expires_at: int, secret: str) -> str:
    """Return the signature of a redirect's target: HMAC-SHA256 over expiry and target, base64url."""
    signed = hmac.digest(secret.encode(), f"{expires_at}\n{target}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")


def is_signed(target: str, expires_at: str, signature: str, secret: str, now: float) -> bool:
    """Tell whether a target is signed and the signature is still in force."""
    if not secret or not re.fullmatch(r"[0-9]{1,12}", expires_at) or int(expires_at) < now or not signature.isascii():
        return False
    return hmac.compare_digest(sign_target(target, int(expires_at), secret), signature)


def _host_and_port(target: str) -> str:
    return urlsplit(target).netloc.rstrip(".")


def _is_prefetch(request: Request) -> bool:
    headers = request.headers
    return any("prefetch" in headers.get(name, "").lower() for name in ("sec-purpose", "purpose", "x-moz", "x-purpose"))
