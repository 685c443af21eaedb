"""Signatures of webhook deliveries, over the raw bytes of the body.

Contract: ``broken_*`` returns None when one of the secrets signed the delivery, else the reason: a word for a metric's
label, never a value. It raises nothing for any header and any body. Every comparison takes constant time, and a
timestamp is compared both ways: a delivery from the future is as wrong as an old one.

Several secrets stand for a rotation: the old one counts until it is taken out of the settings. An empty secret signs
nothing. WooCommerce and others send a signature with an empty secret too, which everybody can make.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

_Form = Callable[[bytes], bytes]

TOLERANCE_SECONDS = 300.0
MISSING = "signature_missing"
MALFORMED = "signature_malformed"
WRONG = "signature_wrong"
OUT_OF_TIME = "timestamp_out_of_tolerance"
NO_SECRET = "no_secret"  # noqa: S105 - a reason

_SECONDS = re.compile(r"[0-9]{1,12}")
_STAMP = re.compile(r"[0-9]{1,13}")
_MILLISECONDS = 13  # digits
_PREFIX = "whsec_"
_PUBLIC_PREFIX = "whpk_"
_PUBLIC_BYTES = 32
_MOST_SIGNATURES = 20  # of one header: a rotation has two
# WordPress stores a secret with these characters escaped and signs with the decoded text (wp_specialchars_decode).
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#039;", "'"), ("&#39;", "'"), ("&amp;", "&"))


def digest(secret: bytes, signed: bytes) -> bytes:
    """Return the HMAC-SHA256 of signed bytes."""
    return hmac.new(secret, signed, hashlib.sha256).digest()


def broken_base64(secrets: Iterable[str], body: bytes, signature: str | None) -> str | None:
    """Check base64 of the body's HMAC, as Shopify signs: the key is the secret's text."""
    return _compared([secret.encode() for secret in secrets if secret], body, signature, _base64)


def broken_hex(secrets: Iterable[str], body: bytes, signature: str | None, prefix: str = "sha256=") -> str | None:
    """Check a prefix and hex digits of the body's HMAC, as Meta and GitHub sign; digits count without case."""
    if signature is None:
        return MISSING
    given = signature.strip()
    if not given.startswith(prefix):
        return MALFORMED
    return _compared([secret.encode() for secret in secrets if secret], body, given[len(prefix) :].lower(), _hex)


def broken_woocommerce(secrets: Iterable[str], body: bytes, signature: str | None) -> str | None:
    """Check WooCommerce's signature; a secret with escaped characters counts in both forms."""
    keys = {form.encode() for secret in secrets if secret for form in (secret, _unescaped(secret)) if form}
    return _compared(sorted(keys), body, signature, _base64)


def broken_stripe(
    secrets: Iterable[str], body: bytes, header: str | None, now: float, tolerance: float = TOLERANCE_SECONDS
) -> str | None:
    """Check ``Stripe-Signature``: hex over ``t.body``; the key is the whole text of the secret with its prefix."""
    if header is None:
        return MISSING
    parts = [part.strip().partition("=") for part in header.split(",")[: _MOST_SIGNATURES + 2]]
    stamps = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(stamps) != 1 or not given or _SECONDS.fullmatch(stamps[0]) is None:
        return MALFORMED
    signed = b"%b.%b" % (stamps[0].encode(), body)
    broken = _compared([secret.encode() for secret in secrets if secret], signed, given, _hex)
    return broken or _out_of_time(stamps[0], now, tolerance)


def broken_standard(
    secrets: Iterable[str], body: bytes, headers: Mapping[str, str], now: float, tolerance: float = TOLERANCE_SECONDS
) -> str | None:
    """Check a delivery under the Standard Webhooks specification; Svix's older header names count too.

    A shared key is what the base64 behind ``whsec_`` means, for ``v1`` (HMAC); a public key stands behind ``whpk_``,
    for ``v1a`` (Ed25519). One signature of one of the keys is enough; a kind without a key counts for nothing.
    """
    for prefix in ("webhook-", "svix-"):
        found = [headers.get(prefix + name) for name in ("id", "timestamp", "signature")]
        if None not in found:
            break
    identity, stamp, signature = found
    if identity is None or stamp is None or signature is None:
        return MISSING
    parts = [part.partition(",") for part in signature.split()[:_MOST_SIGNATURES]]
    of_shared = [text for version, _, text in parts if version == "v1"]
    of_public = [text for version, _, text in parts if version == "v1a"]
    if not (of_shared or of_public) or not identity or _SECONDS.fullmatch(stamp) is None:
        return MALFORMED
    signed = b"%b.%b.%b" % (identity.encode("utf-8", "replace"), stamp.encode(), body)
    listed = tuple(secrets)
    public = [key for secret in listed if is_public(secret) and (key := standard_key(secret))]
    if not any(_is_signed_by(key, signed, text) for key in public for text in of_public):
        shared = [key for secret in listed if not is_public(secret) and (key := standard_key(secret))]
        if public and not (shared and of_shared):
            return WRONG if of_public else MALFORMED
        if broken := _compared(shared, signed, of_shared, _base64):
            return broken
    return _out_of_time(stamp, now, tolerance)


def is_public(secret: str) -> bool:
    """Tell whether a secret of Standard Webhooks is a public key, which checks and cannot sign."""
    return secret.startswith(_PUBLIC_PREFIX)


def standard_key(secret: str) -> bytes:
    """Return the key that a ``whsec_`` or ``whpk_`` text means; empty when it means none."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX).removeprefix(_PUBLIC_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return b"" if is_public(secret) and len(key) != _PUBLIC_BYTES else key


def _is_signed_by(public_key: bytes, signed: bytes, signature: str) -> bool:
    """Tell whether an Ed25519 signature in base64 is right (RFC 8032)."""
    # Imported on first use: only senders with public keys need it.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            base64.b64decode(_bytes(signature), validate=True), signed
        )
    except (InvalidSignature, ValueError):  # binascii.Error is a ValueError
        return False
    return True


class Scheme(NamedTuple):
    """How a sender of its own kind signs.

    Attributes:
        signed: what was signed: ``{body}``, or with a time ``{timestamp}.{body}``, ``v0:{timestamp}:{body}``, ...
        prefix: text before the signature.
        in_base64: base64 instead of hex.
        has_time: the signed text holds a timestamp, seconds or milliseconds since 1970.
        tolerance: how far the timestamp may be from now, seconds.
    """

    signed: str = "{body}"
    prefix: str = ""
    in_base64: bool = False
    has_time: bool = False
    tolerance: float = TOLERANCE_SECONDS


def broken_scheme(
    secrets: Iterable[str], body: bytes, signature: str | None, stamp: str | None, now: float, scheme: Scheme
) -> str | None:
    """Check a delivery under a scheme; the key is the secret's text, hex counts without case."""
    if signature is None or (scheme.has_time and stamp is None):
        return MISSING
    given, at = signature.strip(), (stamp or "").strip()
    if not given.startswith(scheme.prefix) or (scheme.has_time and _STAMP.fullmatch(at) is None):
        return MALFORMED
    before, _, after = scheme.signed.replace("{timestamp}", at).partition("{body}")
    keys = [secret.encode() for secret in secrets if secret]
    text = given[len(scheme.prefix) :]
    form = _base64 if scheme.in_base64 else _hex
    broken = _compared(keys, before.encode() + body + after.encode(), text if scheme.in_base64 else text.lower(), form)
    if broken or not scheme.has_time:
        return broken
    return _out_of_time(at[:-3] if len(at) == _MILLISECONDS else at, now, scheme.tolerance)


def pairs_of(header: str | None) -> dict[str, str]:
    """Return a header such as ``t=1,s=ab`` or ``ts=1;h1=ab`` as a mapping; the first of a name counts."""
    found: dict[str, str] = {}
    for part in re.split("[,;]", header or "")[:_MOST_SIGNATURES]:
        name, equals, text = part.strip().partition("=")
        if equals:
            found.setdefault(name, text)
    return found


def broken_shared_key(secrets: Iterable[str], given: object) -> str | None:
    """Compare a key that the body itself carries, as Google's lead forms do."""
    if not isinstance(given, str) or not given:
        return MISSING
    keys = [secret for secret in secrets if secret]
    if not keys:
        return NO_SECRET
    text = _bytes(given)
    matches = [hmac.compare_digest(_bytes(key), text) for key in keys]
    return None if any(matches) else WRONG


def _compared(keys: Sequence[bytes], signed: bytes, given: str | Sequence[str] | None, form: _Form) -> str | None:
    """Tell whether one of the keys made one of the signatures; all are tried, whatever the first says."""
    if given is None:
        return MISSING
    if not keys:
        return NO_SECRET
    texts = [_bytes(text.strip()) for text in ([given] if isinstance(given, str) else given)]
    matches = [hmac.compare_digest(form(digest(key, signed)), text) for key in keys for text in texts]
    return None if any(matches) else WRONG


def _out_of_time(stamp: str, now: float, tolerance: float) -> str | None:
    return None if abs(now - int(stamp)) <= tolerance else OUT_OF_TIME


def _unescaped(secret: str) -> str:
    for entity, letter in _ENTITIES:
        secret = secret.replace(entity, letter)
    return secret


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _base64(mac: bytes) -> bytes:
    return base64.b64encode(mac)


def _hex(mac: bytes) -> bytes:
    return mac.hex().encode()
