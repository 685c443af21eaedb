# ruff: noqa: RUF001 -- look-alike characters are what is tested
"""Normalisation and hashing: golden vectors of Meta's documentation, our choices, and properties over any text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers.matching import fbc, google, hash_user_data, meta
from attributary.producers.matching.text import sha256_hex
from attributary.producers.matching.user_data import LOCATION_FIELDS, PLAIN_FIELDS

anything = st.text(alphabet=st.characters(), max_size=40) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("key", "value", "start", "end"),
    [  # Meta documentation, customer-information-parameters
        ("em", "John_Smith@gmail.com", "62a14e44", "f62f"),
        ("ph", "16505551212", "e323ec62", "3176"),
        ("fn", "Mary", "6915771b", "f4ec"),
        ("fn", "정", "8fa8cd9c", "db14"),
        ("fn", "Valéry", "08e1996b", "149c"),
        ("db", "2/16/1997", "01acdbf6", "0f0c"),
        ("country", "United States", "79adb2a2", "4621"),
    ],
)
def test_golden_vectors_of_meta(key: str, value: str, start: str, end: str) -> None:
    digest = meta.hashed(key, value)
    assert digest.startswith(start)
    assert digest.endswith(end)
    assert meta.hashed(key, digest.upper()) == digest


@pytest.mark.parametrize(
    ("value", "region", "expected"),
    [
        ("0049 171 1234567", None, "491711234567"),
        ("+49 (0)171 1234567", None, "491711234567"),
        ("0171 1234567", None, ""),
        ("0171 1234567", "DE", "491711234567"),
        ("171 1234567", "DE", "491711234567"),
        ("491711234567", "DE", "491711234567"),
        ("+44.20.7946.0958", None, "442079460958"),
        ("+44 20 7946 0958 ext 12", None, "442079460958"),
        ("+٤٩ ١٧١ ١٢٣٤٥٦٧", None, "491711234567"),
        ("+１ (650) 555-1212", None, "16505551212"),
        ("(650) 555-1212", "US", "16505551212"),
        ("321 234 5678", "US", "13212345678"),
        ("16505551212", "US", "16505551212"),
        ("not a number", "US", ""),
        ("+", None, ""),
    ],
)
def test_phone(value: str, region: str | None, expected: str) -> None:
    assert meta.phone(value, region) == expected
    assert google.phone(value, region) == (f"+{expected}" if expected else "")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("em", "  Jane@Example.COM ", "jane@example.com"),
        ("em", "jane", ""),
        ("em", "a b@example.com", ""),
        ("fn", "O'Brien", "obrien"),
        ("fn", "O’Neil", "oneil"),
        ("fn", "Jean-Luc", "jeanluc"),
        ("fn", "Анна Мария", "аннамария"),
        ("fn", "Vale\u0301ry", "val\u00e9ry"),
        ("fn", "İbrahim", "i\u0307brahim"),
        ("ct", "München", "münchen"),
        ("ct", "Москва", "москва"),
        ("ct", "New York", "newyork"),
        ("ct", "L'Aquila", "laquila"),
        ("st", "California", "ca"),
        ("st", "Bayern", "bayern"),
        ("st", "CA", "ca"),
        ("st", "Québec", "qc"),
        ("zp", "M1 1AE", "m11ae"),
        ("zp", "94035-1234", "94035"),
        ("zp", "1010-001", "1010"),
        ("country", "United States", "us"),
        ("country", "USA", "us"),
        ("country", "UK", "gb"),
        ("country", "Deutschland", "de"),
        ("country", "Österreich", "at"),
        ("country", "Atlantis", ""),
        ("db", "2/16/1997", "19970216"),
        ("db", "16.02.1997", "19970216"),
        ("db", "16/2/1997", "19970216"),
        ("db", "1997-02-16", "19970216"),
        ("db", "19970216", "19970216"),
        ("db", "1997-02-30", ""),
        ("ge", "Female", "f"),
        ("ge", "M", "m"),
        ("ge", "?", ""),
        ("external_id", " User-123 ", "User-123"),
        ("fn", "\ud800", ""),
    ],
)
def test_normal_forms(key: str, value: str, expected: str) -> None:
    assert meta.NORMALISERS[key](value) == expected


def test_a_state_outside_north_america_is_not_mapped() -> None:
    assert meta.state("Georgia") == "ga"
    assert meta.state("Victoria", "au") == "victoria"
    assert meta.state("Washington", "gb") == "washington"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" John.Smith@GMAIL.com ", ["johnsmith@gmail.com"]),
        ("j.s+shop@googlemail.com", ["js@googlemail.com", "js+shop@googlemail.com"]),
        ("john.smith+x@example.com", ["john.smith+x@example.com"]),
        ("nonsense", []),
    ],
)
def test_google_email(value: str, expected: list[str]) -> None:
    assert google.emails(value) == expected


def test_google_names_keep_inner_space_and_lose_digits() -> None:
    assert google.name(" Anna-Maria 2 Müller ") == "annamaria  müller"
    assert google.street(" 12, Main St. #4 ") == "12 main st 4"


def test_hash_user_data_fills_both_families_and_clears_what_is_plain() -> None:
    plain = {
        "email": "John.Smith@gmail.com",
        "phone": "0171 1234567",
        "first_name": "John",
        "country": "Germany",
        "region": "Bayern",
        "street": "Hauptstr. 1",
        "external_id": "User-1",
        "date_of_birth": None,
    }
    hashed = hash_user_data(plain, default_region="US")
    assert all(hashed[field] is None for field in PLAIN_FIELDS)
    assert hashed["meta_hashes"]["em"] == [sha256_hex("john.smith@gmail.com")]
    assert hashed["google_hashes"]["sha256_email_address"] == [sha256_hex("johnsmith@gmail.com")]
    assert hashed["meta_hashes"]["ph"] == [sha256_hex("491711234567")], "the person's country goes before the default"
    assert hashed["google_hashes"]["sha256_phone_number"] == [sha256_hex("+491711234567")]
    assert hashed["meta_hashes"]["country"] == [sha256_hex("de")]
    assert hashed["meta_hashes"]["external_id"] == [sha256_hex("User-1")]
    assert set(hashed["google_hashes"]) == {
        "sha256_email_address",
        "sha256_phone_number",
        "sha256_first_name",
        "sha256_street",
    }
    assert hash_user_data(hashed) == hashed
    kept = hash_user_data(plain, keep_location=True)
    assert {field: kept[field] for field in LOCATION_FIELDS} == {field: plain.get(field) for field in LOCATION_FIELDS}
    assert hash_user_data(kept, keep_location=True) == kept


def test_values_hashed_by_the_caller_pass_through_once() -> None:
    digest = hashlib.sha256(b"jane@example.com").hexdigest()
    hashed = hash_user_data({"email": digest.upper(), "meta_hashes": {"em": [digest]}})
    assert hashed["meta_hashes"]["em"] == [digest]
    assert hashed["google_hashes"]["sha256_email_address"] == [digest]


def test_an_external_id_that_looks_like_md5_is_an_id() -> None:
    uuid_hex = "0123456789abcdef0123456789abcdef"
    assert meta.hashed("external_id", uuid_hex) == sha256_hex(uuid_hex)
    assert meta.hashed("em", uuid_hex) == "", "an MD5 under other keys is dropped, never hashed again"


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(meta.HASHED_KEYS), value=anything)
def test_meta_normal_forms_are_idempotent_and_never_raise(key: str, value: str) -> None:
    once = meta.NORMALISERS[key](value)
    assert meta.NORMALISERS[key](once) == once
    digest = meta.hashed(key, value)
    assert digest == "" or len(digest) == 64
    assert meta.hashed(key, digest) == digest or not digest


@settings(max_examples=100, deadline=None)
@given(value=anything)
def test_google_normal_forms_are_idempotent_and_never_raise(value: str) -> None:
    for form in (google.name, google.street, google.phone):
        assert form(form(value)) == form(value)
    for key in google.HASHED_KEYS:
        for digest in google.hashed(key, value):
            assert google.hashed(key, digest) == [digest]


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(PLAIN_FIELDS, anything | st.none())))
def test_hashing_twice_changes_nothing_and_leaves_nothing_plain(user_data: dict[str, str | None]) -> None:
    hashed = hash_user_data(user_data, default_region="DE")
    assert hash_user_data(hashed, default_region="FR") == hashed
    assert all(hashed[field] is None for field in PLAIN_FIELDS)


FBCLID = "IwAR2F-4Dbp0l7Mn1IawQQGCINEz7PYXQvwjNwB_qa2ofrHyiLjcbCRxTDMgk"


def test_fbc_is_built_from_the_case_exact_click_id() -> None:
    assert fbc.build_fbc(FBCLID, 1554763741205) == f"fb.1.1554763741205.{FBCLID}"
    assert fbc.parse("fb.1.1795493479732.IwAR2F-x_Y.AQICAQMC") == fbc.BrowserValue(
        1, 1795493479732, "IwAR2F-x_Y", "AQICAQMC"
    )
    assert fbc.is_fbc("fb.1.1795493479732.IwAR2F-x_Y.AQ")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "fb",
        "fb.1.1795493479732",
        "fb.3.1795493479732.x",
        "fb.1.179.x",
        "fb.1.1795493479732.x y",
        "fb.1.1795493479732.x.abc",
        "fb.1.1795493479732.é",
    ],
)
def test_malformed_click_ids_are_refused(value: str) -> None:
    assert not fbc.is_fbc(value)
    assert fbc.parse(value) is None


def test_a_finished_fbc_is_never_wrapped_or_stamped_again() -> None:
    finished = f"fb.1.1554763741205.{FBCLID}.AQICAQMC"
    assert fbc.build_fbc(finished, 1795493479732) == finished
    assert fbc.build_fbc("fb.nonsense", 1795493479732) is None
    assert fbc.build_fbc("has%20escape", 1795493479732) is None
    assert fbc.renewed_fbc(finished, FBCLID, 1795493479732) == finished, "5 segments and the same click"
    assert fbc.renewed_fbc(finished, FBCLID.swapcase(), 1795493479732) == f"fb.1.1795493479732.{FBCLID.swapcase()}"
    assert fbc.renewed_fbc(finished, None, 1795493479732) == finished
    assert fbc.renewed_fbc("rubbish", None, 1795493479732) is None


def test_fbp_is_a_number() -> None:
    built = fbc.build_fbp(1098115397, 1554763741205)
    assert built == "fb.1.1554763741205.1098115397"
    assert fbc.is_fbp(built)
    assert fbc.is_fbp(built + ".AQ")
    assert not fbc.is_fbp("fb.1.1554763741205.abc")


@settings(max_examples=100, deadline=None)
@given(anything)
def test_fbc_functions_take_any_text(value: str) -> None:
    fbc.parse(value)
    built = fbc.build_fbc(value, 1795493479732)
    if built is not None:
        assert fbc.build_fbc(built, 1) == built
        assert str(fbc.parse(built)) == built
