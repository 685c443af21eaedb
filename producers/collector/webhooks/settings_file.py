"""The file of webhook sources (``COLLECT_WEBHOOKS_FILE``): YAML, with references to secrets instead of secrets.

::

    webhooks:
      - name: shop
        provider: shopify
        tenant: acme
        path: kd83hf02mslq94jd          # the address is /webhooks/<path>
        secrets: [env:SHOPIFY_SECRET, file:/run/secrets/shopify_old]
        options: {currency: EUR}

Invariant: two sources have neither the same name nor the same path. An error names the file, the source and the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from attributary.schemas.yaml_file import YamlFileError, read_yaml

from .signatures import TOLERANCE_SECONDS
from .source import Provider, SourceError, WebhookSource, read_options

_TEXT = (str, "a text")
_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "name": _TEXT,
    "provider": _TEXT,
    "tenant": _TEXT,
    "path": _TEXT,
    "guest_key": _TEXT,
    "ip": _TEXT,
    "secrets": (list, "a list of env:NAME and file:PATH"),
    "options": (dict, "a mapping"),
    "consent": (dict, "true or false by purpose"),
    "tolerance_seconds": ((int, float), "a number"),
}
NOT_READ = "not0read"  # also base64, which Standard Webhooks need
"""Stands for every secret of a file that was read without its secrets."""


def read_sources(
    path: Path, environ: Mapping[str, str], *, with_secrets: bool = True, only: str | None = None
) -> list[WebhookSource]:
    """Return the sources of a file.

    Args:
        path: the file.
        environ: the environment, for ``env:`` references.
        with_secrets: read the secrets; without, `NOT_READ` stands for each, to check mappings where they are not set.
        only: read the secrets of the source with this name alone.

    Raises:
        SourceError: the file or a secret cannot be read, or a setting breaks a rule.
    """
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        raise SourceError(f"{path.name or path}: {error}") from None
    entries = document.get("webhooks") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(cast("dict[str, Any]", document)) != 1:
        raise SourceError(f"{path.name}: must have `webhooks`, a list of sources, and nothing else")
    places = [f"{path.name}: webhooks[{number}]" for number in range(len(entries))]
    sources = [
        _source(entry, place, _Secrets(environ, with_secrets and (only is None or _name(entry) == only)))
        for entry, place in zip(entries, places, strict=True)
    ]
    for what, values in (
        ("name", [source.name for source in sources]),
        ("path", [source.path_id for source in sources if source.path_id]),
    ):
        if len(set(values)) != len(values):
            raise SourceError(f"{path.name}: two sources have the same {what}")
    return sources


def _name(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, dict) else None


class _Secrets:
    """Reads secrets where they stand, or not at all."""

    def __init__(self, environ: Mapping[str, str], with_secrets: bool) -> None:
        self._environ = environ
        self._with_secrets = with_secrets

    def read(self, reference: str, place: str) -> str:
        scheme, _, target = reference.partition(":")
        if scheme not in {"env", "file"} or not target:
            raise SourceError(f"{place}: a secret is env:NAME or file:PATH, never the secret itself")
        if not self._with_secrets:
            return NOT_READ
        if scheme == "env":
            if not self._environ.get(target):
                raise SourceError(f"{place}: the variable {target} is not set")
            return self._environ[target]
        try:
            return Path(target).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SourceError(f"{place}: the file {target} cannot be read") from None


def _source(entry: Any, place: str, secrets: _Secrets) -> WebhookSource:
    _check_types(entry, place)
    consent, policy = entry.get("consent"), entry.get("ip", "cut")
    if policy not in {"full", "cut", "none"}:
        raise SourceError(f"{place}: ip must be full, cut or none")
    name, provider, guest_key = entry.get("name", ""), entry.get("provider", ""), entry.get("guest_key", "")
    return WebhookSource(
        name=name,
        provider=cast("Provider", provider),
        tenant_id=entry.get("tenant", ""),
        path_id=entry.get("path", ""),
        secrets=tuple(secrets.read(each, place) for each in entry.get("secrets", ())),
        options=read_options(name, provider, entry.get("options", {})),
        tolerance_seconds=float(entry.get("tolerance_seconds", TOLERANCE_SECONDS)),
        ip=policy,
        consent=None if consent is None else {str(purpose): given for purpose, given in consent.items()},
        guest_key=secrets.read(guest_key, place) if guest_key else "",
    )


def _check_types(entry: Any, place: str) -> None:
    if not isinstance(entry, dict):
        raise SourceError(f"{place}: must be a mapping of {', '.join(sorted(_TYPES))}")
    if unknown := sorted(str(key) for key in entry.keys() - _TYPES.keys()):
        raise SourceError(f"{place}: {unknown[0]} is not known; expected {', '.join(sorted(_TYPES))}")
    for key, (kind, rule) in _TYPES.items():
        if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], kind)):
            raise SourceError(f"{place}: {key} must be {rule}")
    if not all(isinstance(each, str) for each in entry.get("secrets", ())):
        raise SourceError(f"{place}: secrets must be a list of env:NAME and file:PATH")
    if not all(isinstance(given, bool) for given in entry.get("consent", {}).values()):
        raise SourceError(f"{place}: consent must be true or false by purpose")
