"""Write keys and secret keys: a file holds their hashes, and the key alone says which tenant a record belongs to.

- ``wk_...`` write keys stand in pages and can be read by anybody: touchpoints, identity links, and conversions without
  a value unless the key may name one. With an ``Origin`` header it must be on the key's list, exactly.
- ``sk_...`` secret keys belong to servers: everything their scopes allow. They are refused in URLs and from pages.

Keys are looked up by the SHA-256 of 256 random bits, so neither the file nor the time of a look-up tells a key.
Rotation: a new key beside the old one, which then ends at a set time.

Invariant: a file that cannot be read or breaks a rule never replaces the keys in use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from attributary.producers.sites import ascii_host, own_domain
from attributary.schemas.limits import is_tenant

KeyKind = Literal["wk", "sk"]
SCOPES = ("event", "conversion", "read", "jobs", "erase")
DEFAULT_SCOPES: Mapping[KeyKind, tuple[str, ...]] = {"wk": ("event", "conversion"), "sk": ("event", "conversion")}
WRITE_SCOPES = frozenset({"event", "conversion"})

_TOKEN = re.compile(r"(?:wk|sk)_[A-Za-z0-9_-]{20,100}")
_KEY_ID = re.compile(r"[0-9a-f]{8,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN_BYTES = 32
_VERSION = 1


class KeysError(ValueError):
    """The file of keys cannot be used; the text names the place and the rule, never a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. Times in seconds since 1970, UTC.

    Attributes:
        key_id: names the key in lists and logs; not secret.
        sha256: hash of the key, hex.
        kind: wk or sk.
        tenant: the tenant of whatever comes with the key.
        scopes: event (touchpoints, identity links), conversion, read, jobs, erase.
        label: what people call it.
        origins: pages that may use it, such as ``https://shop.example``; exact, scheme and port included.
        redirect_hosts: hosts to which the click redirect leads without a signature.
        browser_values: a write key may name a conversion's value.
        consent: what holds where a record says nothing about a purpose; empty: unknown.
        requests_per_second: allowance; None: the collector's default.
        created_at, expires_at, revoked_at: None: never.
    """

    key_id: str
    sha256: str
    kind: KeyKind
    tenant: str
    scopes: tuple[str, ...]
    label: str = ""
    origins: tuple[str, ...] = ()
    redirect_hosts: tuple[str, ...] = ()
    browser_values: bool = False
    consent: Mapping[str, bool] = field(default_factory=dict)
    requests_per_second: float | None = None
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def is_secret(self) -> bool:
        """Whether it is a secret key."""
        return self.kind == "sk"

    def is_live(self, now: float) -> bool:
        """Tell whether the key is in force at a time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def own_domains(self) -> tuple[str, ...]:
        """Return the hosts of the key's origins: a referrer of one of them is a visit that goes on."""
        return tuple(host for origin in self.origins if (host := urlsplit(origin).hostname))


class KeyRing:
    """The keys in use, read from a file and again whenever it changed.

    Args:
        path: the file; None: no key is known.

    Raises:
        KeysError: the file cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = None
        self._by_hash: dict[str, Key] = {}
        self.origins: frozenset[str] = frozenset()
        if path is not None:
            self._signature = _signature(path)
            self._use(load_keys(path))

    def refresh(self) -> bool:
        """Read the file again if it changed; return whether it did.

        Raises:
            KeysError: the changed file cannot be used; the keys of before stay in use.
        """
        if self._path is None or (signature := _signature(self._path)) == self._signature:
            return False
        self._signature = signature
        self._use(load_keys(self._path))
        return True

    def find(self, token: str, now: float) -> Key | None:
        """Return the live key of a token, None when there is none."""
        if not _TOKEN.fullmatch(token):
            return None
        key = self._by_hash.get(hash_token(token))
        return key if key is not None and key.is_live(now) and token.startswith(key.kind) else None

    def _use(self, keys: Iterable[Key]) -> None:
        self._by_hash = {key.sha256: key for key in keys}
        self.origins = frozenset(origin for key in self._by_hash.values() for origin in key.origins)


def hash_token(token: str) -> str:
    """Return the hash under which a key is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_key(kind: KeyKind, tenant: str, *, now: int, scopes: Sequence[str] = (), **others: Any) -> tuple[str, Key]:
    """Return a new token, which is shown once, and its key.

    Args:
        kind: wk or sk.
        tenant: the tenant.
        now: seconds since 1970.
        scopes: those of the kind when empty.
        others: any other field of ``Key``.

    Raises:
        KeysError: a field breaks a rule.
    """
    token = f"{kind}_{secrets.token_urlsafe(_TOKEN_BYTES)}"
    document = {
        "key_id": secrets.token_hex(4), "sha256": hash_token(token), "kind": kind, "tenant": tenant,
        "scopes": list(scopes or DEFAULT_SCOPES[kind]), "created_at": now, **others,
    }  # fmt: skip
    return token, key_of(document)


def key_of(document: Mapping[str, Any]) -> Key:
    """Return the key that an entry of the file describes.

    Raises:
        KeysError: the entry breaks a rule.
    """
    known = {each.name for each in fields(Key)}
    if unknown := sorted(set(document) - known):
        raise KeysError(f"{str(unknown[0])[:40]}: is no field of a key")
    key_id, kind = document.get("key_id"), document.get("kind")
    _demand(isinstance(key_id, str) and _KEY_ID.fullmatch(key_id), "key_id", "must be 8 to 32 hex digits")
    _demand(_SHA256.fullmatch(str(document.get("sha256"))), "sha256", "must be 64 hex digits")
    _demand(kind in DEFAULT_SCOPES, "kind", "must be wk or sk")
    _demand(isinstance(document.get("tenant"), str) and is_tenant(document["tenant"]), "tenant", "names no tenant")
    scopes = _texts(document, "scopes")
    _demand(scopes and set(scopes) <= set(SCOPES), "scopes", f"must be of {', '.join(SCOPES)}")
    _demand(kind == "sk" or set(scopes) <= WRITE_SCOPES, "scopes", "a write key may have event and conversion only")
    label = document.get("label", "")
    _demand(isinstance(label, str) and len(label) <= 200 and label.isprintable(), "label", "must be a short text")
    _demand(type(document.get("browser_values", False)) is bool, "browser_values", "must be true or false")
    consent = document.get("consent", {})
    _demand(isinstance(consent, Mapping) and all(type(given) is bool for given in consent.values()),
            "consent", "must be true or false by purpose")  # fmt: skip
    for name in ("created_at", "expires_at", "revoked_at", "requests_per_second"):
        number = document.get(name)
        _demand(number is None or (type(number) in {int, float} and number >= 0), name, "must be a number")
    values = {
        **document,
        "scopes": scopes,
        "origins": tuple(map(origin_of, _texts(document, "origins"))),
        "redirect_hosts": tuple(map(_host_of, _texts(document, "redirect_hosts"))),
    }
    return Key(**values)


def origin_of(text: str) -> str:
    """Return an origin as browsers send it: ``https://shop.example``, the default port left out.

    Raises:
        KeysError: it is none, or a pattern.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise KeysError("origins: must be like https://shop.example") from None
    host = ascii_host(parts.hostname or "")
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    _demand(parts.scheme in {"http", "https"} and host and "*" not in host and plain,
            "origins", "must be like https://shop.example, without path or pattern")  # fmt: skip
    default = {"http": 80, "https": 443}[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in {None, default} else f":{port}")


def load_keys(path: Path) -> list[Key]:
    """Return the keys of a file.

    Raises:
        KeysError: the file cannot be used.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{path.name or path}: the file cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise KeysError(f"{path.name}: the file is no JSON") from None
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise KeysError(f"{path.name}: is no file of keys, or one of another version")
    entries = document.get("keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeysError(f"{path.name}: keys: must be a list of objects")
    keys: list[Key] = []
    for number, entry in enumerate(entries, start=1):
        try:
            keys.append(key_of(entry))
        except (KeysError, TypeError) as error:
            raise KeysError(f"{path.name}: key {number}: {error}") from None
    if len({key.key_id for key in keys}) < len(keys) or len({key.sha256 for key in keys}) < len(keys):
        raise KeysError(f"{path.name}: keys: two have one key_id or one hash")
    return keys


@contextmanager
def edit_keys(path: Path) -> Iterator[list[Key]]:
    """Yield the keys of a file to change; leaving the block without an error replaces the file in one step.

    Raises:
        KeysError: the file cannot be used.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = load_keys(path) if path.exists() else []
        yield keys
        text = json.dumps({"version": _VERSION, "keys": [asdict(key) for key in keys]}, indent=1) + "\n"
        written = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    finally:
        os.close(lock)


def revoked(key: Key, *, at: int) -> Key:
    """Return a key that ends at a time: at once when it is in the past."""
    if at <= time.time():
        return replace(key, revoked_at=at)
    return replace(key, expires_at=at if key.expires_at is None else min(at, key.expires_at))


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = document.get(name, ())
    _demand(isinstance(found, list | tuple) and all(isinstance(text, str) for text in found), name, "must be texts")
    return tuple(found)


def _host_of(text: str) -> str:
    try:
        own_domain(text)
    except ValueError:
        raise KeysError("redirect_hosts: must name hosts such as shop.example") from None
    host = ascii_host(text)
    _demand(re.fullmatch(r"[a-z0-9.-]+(:[0-9]{1,5})?", host), "redirect_hosts", "must name hosts such as shop.example")
    return host


def _demand(holds: object, name: str, rule: str) -> None:
    if not holds:
        raise KeysError(f"{name}: {rule}")
