"""Turn plain user data of a conversion into hashes, once per family of rules.

Contract: the result has the fields of the schema's UserData; every plain field is None afterwards (unless
`keep_location` asks for the coarse ones), the hashes that were there stay first. Hashing twice changes nothing.
Invariant: no plain value can be read from the result, and no function here raises for any text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.producers.matching import google, meta
from attributary.producers.matching.text import lowered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PLAIN_FIELDS = (
    "email",
    "phone",
    "first_name",
    "last_name",
    "date_of_birth",
    "gender",
    "street",
    "city",
    "region",
    "postal_code",
    "country",
    "external_id",
)
LOCATION_FIELDS = ("city", "region", "postal_code", "country")
META_KEYS = {
    "email": "em",
    "phone": "ph",
    "first_name": "fn",
    "last_name": "ln",
    "date_of_birth": "db",
    "gender": "ge",
    "city": "ct",
    "region": "st",
    "postal_code": "zp",
    "country": "country",
    "external_id": "external_id",
}
GOOGLE_KEYS = {
    "email": "sha256_email_address",
    "phone": "sha256_phone_number",
    "first_name": "sha256_first_name",
    "last_name": "sha256_last_name",
    "street": "sha256_street",
}


def hash_user_data(
    user_data: Mapping[str, Any], *, default_region: str | None = None, keep_location: bool = False
) -> dict[str, Any]:
    """Fill `meta_hashes` and `google_hashes` and clear the plain fields.

    Args:
        user_data: fields of the schema's UserData; plain values may be hashed already.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code, used after the person's own
            country. None: such a number is dropped.
        keep_location: leave city, region, postal code and country plain as well. GA4 takes them only in clear, and
            an address there needs postal code and country.

    Returns:
        A new record; the argument is not changed.
    """
    home = meta.country(user_data.get("country") or "")
    regions = (home or None, default_region)
    for_meta = _copied(user_data.get("meta_hashes"))
    for_google = _copied(user_data.get("google_hashes"))
    for field in PLAIN_FIELDS:
        value = user_data.get(field)
        if not value:
            continue
        if key := META_KEYS.get(field):
            _add(for_meta, key, [meta.hashed(key, value, regions=regions, home=home)])
        if key := GOOGLE_KEYS.get(field):
            _add(for_google, key, google.hashed(key, value, regions=regions))
    result: dict[str, Any] = dict.fromkeys(PLAIN_FIELDS)
    if keep_location:
        result |= {field: user_data.get(field) for field in LOCATION_FIELDS}
    return result | {"meta_hashes": for_meta, "google_hashes": for_google}


def google_address(user_data: Mapping[str, Any]) -> dict[str, str]:
    """Give the plain parts of GA4's `address`, from the fields that are still plain."""
    parts = {field: lowered(user_data.get(field) or "") for field in ("city", "region", "postal_code")}
    parts["country"] = meta.country(user_data.get("country") or "").upper()
    return {field: text for field, text in parts.items() if text}


def _copied(hashes: Mapping[str, Iterable[str]] | None) -> dict[str, list[str]]:
    return {key: list(values) for key, values in (hashes or {}).items()}


def _add(hashes: dict[str, list[str]], key: str, values: Iterable[str]) -> None:
    present = hashes.get(key, [])
    merged = present + [value for value in dict.fromkeys(values) if value and value not in present]
    if merged:
        hashes[key] = merged
