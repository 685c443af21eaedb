"""Turn plain user data of a conversion into hashes, once per family of rules.

Contract: the result has the fields of the schema's UserData; every plain field is None afterwards (unless
`keep_location` asks for the coarse ones), the hashes that were there stay first. Hashing twice changes nothing.
Invariant: no plain value can be read from the result, and no function here raises for any text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.producers.matching import google, meta
from attributary.producers.matching.text import is_md5, is_placeholder, lowered, without_digits, without_symbols

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

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
SEVERAL = frozenset(("email", "phone", "external_id"))
"""Fields of which a person has several: a list of texts is hashed one by one."""
_MAX_VALUES = 10  # of one field; as many identifiers as Google's Data Manager takes of a person
_LONGEST_VALUE = 1_000  # nothing that identifies a person is longer, and normalising 250,000 letters takes a second
_WORDS = ("city", "region")
_POSTAL_SYMBOLS = str.maketrans("", "", ".~")
BARE_EMAIL = "em_bare"
"""Key among `meta_hashes` of an address without dots and tag in its local part, where that makes another hash.

Reddit and Microsoft want it of every domain. Of a Gmail address it is among `google_hashes` already.
"""
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


class HashedUserData(NamedTuple):
    """User data after hashing, and what could not be used.

    Attributes:
        user_data: the fields of the schema's UserData.
        left_out: by family ("meta", "google"): remarks such as "phone left out: its country is not known"; a remark
            names the field and the rule, never the value.
    """

    user_data: dict[str, Any]
    left_out: dict[str, list[str]]


def hash_user_data(
    user_data: Mapping[str, Any], *, default_region: str | None = None, keep_location: bool = False
) -> dict[str, Any]:
    """Return user data hashed; see `hash_user_data_with_remarks` for arguments and for what was left out."""
    return hash_user_data_with_remarks(user_data, default_region=default_region, keep_location=keep_location).user_data


def hash_user_data_with_remarks(
    user_data: Mapping[str, Any], *, default_region: str | None = None, keep_location: bool = False
) -> HashedUserData:
    """Fill `meta_hashes` and `google_hashes` and clear the plain fields.

    Args:
        user_data: fields of the schema's UserData; plain values may be hashed already. `email`, `phone` and
            `external_id` may be lists of several, 10 each at most.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code, used after the person's own
            country. None: such a number is dropped.
        keep_location: leave city, region, postal code and country plain as well. GA4 takes them only in clear, and
            an address there needs postal code and country.

    Returns:
        A new record, and remarks on what was left out; the argument is not changed.
    """
    home = meta.country((user_data.get("country") or "")[:_LONGEST_VALUE])
    regions = (home or None, default_region)
    for_meta = _copied(user_data.get("meta_hashes"))
    for_google = _copied(user_data.get("google_hashes"))
    left_out: dict[str, list[str]] = {"meta": [], "google": []}
    for field in PLAIN_FIELDS:
        given = user_data.get(field)
        if not given:
            continue
        for value in _values(field, given, left_out):
            key = META_KEYS.get(field)
            if key and not _add(for_meta, key, [meta.hashed(key, value, regions=regions, home=home)]):
                left_out["meta"].append(_remark(field, value, regions))
            if field == "email":
                _add(for_meta, BARE_EMAIL, [meta.hashed_bare_email(value)])
            key = GOOGLE_KEYS.get(field)
            if key and not _add(for_google, key, google.hashed(key, value, regions=regions)):
                left_out["google"].append(_remark(field, value, regions))
    result: dict[str, Any] = dict.fromkeys(PLAIN_FIELDS)
    if keep_location:
        result |= {field: user_data.get(field) for field in LOCATION_FIELDS}
    return HashedUserData(result | {"meta_hashes": for_meta, "google_hashes": for_google}, left_out)


def _values(field: str, given: Any, left_out: Mapping[str, list[str]]) -> Sequence[str]:
    """Return the values of a field, those that are too long or too many left out with a remark."""
    listed = list(given) if field in SEVERAL and isinstance(given, list | tuple) else [given]
    found = [value for value in listed if value]
    rules = [f"longer than {_LONGEST_VALUE} characters" for value in found if len(value) > _LONGEST_VALUE]
    if len(found) > _MAX_VALUES:
        rules.append(f"more than {_MAX_VALUES}")
    for family, keys in (("meta", META_KEYS), ("google", GOOGLE_KEYS)):
        if field in keys:
            left_out[family] += [f"{field} left out: {rule}" for rule in rules]
    return [value for value in found if len(value) <= _LONGEST_VALUE][:_MAX_VALUES]


def _remark(field: str, value: str, regions: Iterable[str | None]) -> str:
    if is_placeholder(value.strip()) or is_placeholder(value.strip().lower()):
        rule = "a placeholder"
    elif is_md5(value):
        rule = "an MD5, destinations match SHA-256"
    elif field == "phone":
        rule = "not a valid number" if any(regions) else "not a valid number, or its country is not known"
    else:
        rule = {"email": "not an address", "country": "not a known country"}.get(field, "not understood")
    return f"{field} left out: {rule}"


def usable_hashes(
    hashes: Mapping[str, Sequence[str]], known: Collection[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the hashes that a destination can use, by its key, and remarks on the others.

    Left out are keys that the destination does not know, and hashes of nothing (of an empty text, of "null", ...).
    """
    found: dict[str, list[str]] = {}
    remarks: list[str] = []
    for key, digests in hashes.items():
        if key == BARE_EMAIL and key not in known:
            continue  # other destinations want it
        if key not in known:
            remarks.append("a hash left out: its key is not known")
            continue
        good = [digest for digest in digests if not is_placeholder(digest)]
        if len(good) < len(digests):
            remarks.append(f"{key} left out: the hash of an empty text or of a placeholder")
        if good:
            found[key] = good
    return found, remarks


def google_address(user_data: Mapping[str, Any]) -> dict[str, str]:
    """Return the plain parts of GA4's `address`, from the fields that are still plain.

    City and region lose digits and symbols, a postal code loses "." and "~" (Google, "Send user-provided data").
    """
    words = {field: without_digits(without_symbols(lowered(user_data.get(field) or ""))) for field in _WORDS}
    parts = {field: " ".join(text.split()) for field, text in words.items()}
    parts["postal_code"] = lowered(user_data.get("postal_code") or "").translate(_POSTAL_SYMBOLS).strip()
    parts["country"] = meta.country(user_data.get("country") or "").upper()
    return {field: text for field, text in parts.items() if text and not is_placeholder(text)}


def _copied(hashes: Mapping[str, Iterable[str]] | None) -> dict[str, list[str]]:
    return {key: list(values) for key, values in (hashes or {}).items()}


def _add(hashes: dict[str, list[str]], key: str, values: Iterable[str]) -> bool:
    """Add hashes behind those that are there; False when there is nothing to add."""
    found = [value for value in dict.fromkeys(values) if value]
    present = hashes.get(key, [])
    merged = present + [value for value in found if value not in present]
    if merged:
        hashes[key] = merged
    return bool(found)
