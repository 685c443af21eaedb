"""What is no identity: the kinds of placeholders, normal form, and what tenants add (facts/field-cases.md, B6)."""

from __future__ import annotations

import base64
import hashlib
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attributary.attribution_core.domain import identity_rules
from attributary.attribution_core.domain.identity_rules import IdentityRules, normalized_id, placeholder
from attributary.schemas.rules import check_touchpoint

WORDS = ["null", "undefined", "None", "NaN", "unknown", "anonymous", "guest", "0", "n/a", "not set", "unbekannt"]
KINDS: dict[str, list[str]] = {
    identity_rules.WORD: [
        r"\N", "(null)", "#N/A", "null", "NULL", "<null>", "[null]", "<NA>", "NaT", '"undefined"', "'null'", "0", "-1",
        "undefined-undefined", "undefined.undefined", "null_null", "nullnull", "undefinedundefined", "null,null",
        "not_logged_in", "notLoggedIn", "not logged in", "not_authenticated", "anonymous_user", "anonymousUser",
        "distinctid", "user_id", "userId", "email", "system", "test", "none@none.com", "test@test.com",
        "noemail@shop.de", "no-reply@shop.de", "guest@shop.de", "unbekannt", "k.A.", "inconnu", "desconocido", "未知",
        "#REF!", "#VALUE!", "#NAME?", "lmy47d", "abc123", "123456789", "void", "TBD", "n.a.", "no user", "\uff4eull",
    ],
    identity_rules.BLANK: ["", " ", "--", "_", "?", ".", '""', "-", "\u2014", "\u2026", "\u200b", "\xa0", "***",
        "\u3164"],
    identity_rules.REPEATED: [
        "00000000-0000-0000-0000-000000000000", "11111111-1111-1111-1111-111111111111", "000000", "0000", "9999999999",
        "ffffffff-ffff-ffff-ffff-ffffffffffff", "11111111-1111-4111-8111-111111111111", "0.0.0", "0:0:0:0", "xxxxxxxx",
        "00:00:00:00:00:00", "111111", "00000000000000000000000000000000",
    ],
    identity_rules.SAMPLE: [
        "550e8400-e29b-41d4-a716-446655440000", "123e4567-e89b-12d3-a456-426614174000", "9774d56d682e549c",
        "02:00:00:00:00:00", "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx", "12345678-1234-1234-1234-123456789012",
        "123E4567E89B12D3A456426614174000", "deadbeef",
    ],
    identity_rules.TEMPLATE: [
        "{{user_id}}", "${user.id}", "{user}", "%7B%7Buser_id%7D%7D", "__USER_ID__", "*|EMAIL|*", "%%emailaddr%%",
        "%ifa%", "[replace_me]", "<USER_ID>", "<%= user.id %>", "#{id}", "%s", "%{user}", "[[user]]", "$user_id",
        ":user_id", "__CLICKID__", "-%recipient.email%-", "$(user)", "@@id@@", "(not a member)", "user-{{id}}",
        "{% id %}",
    ],
    identity_rules.OBJECT: [
        "[object Object]x", "[object HTMLInputElement]", "{}", "[]", '{"id":null}', "<User object at 0x7f3>",
        "java.lang.Object@1b6d3586", "Optional[7]", "function () {}", "System.Object[]", "() => {}", "#<User:0x0001>",
        "Promise {<pending>}", "['a']",
    ],
    identity_rules.LOST_DIGITS: ["1.23457E+15", "1e+21", "1E+21", "1.5e21", "1,23457E+15"],
}  # fmt: skip
REAL = [
    "42", "anonymous-7", "a0", "Zero", "nobody@example.org", "u7", "jane.doe", "jane@example.com",
    "GA1.2.1234567890.1700000000",
    "123.456", "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", "11111", "222", "test-7", "user_1", "günther", "null-island",
    "admin", "user42@test.com", "a", "x", "urn:uuid:5f1c", "b3b1c4e2-6f0d-4a1e-9d27-9b8a2c1d0e3f", "Jane Doe", "o'neil",
    "日本太郎", "5e1234567890ab", "12e4567", "info@acme.com", "test@shop.example", "guesthouse", "nancy", "Nina", "a/b",
    "x=y", "amzn1.account.AF", "5f7c8ec7c33c6c004bbafe82", "shop\\jane", "user+tag@x.com", "~me", "@jane", "#42",
    "io.jane",
    "1700000000000", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "fb.1.1700000000000.123",
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in KINDS.items() for text in texts])
def test_b6_a_placeholder_is_refused_by_the_rule_of_its_kind(rule: str, text: str) -> None:
    assert placeholder(text) == rule
    assert placeholder(f"\u200b {text}\xa0") == rule  # blanks and invisible characters change nothing


@pytest.mark.parametrize("text", REAL)
def test_b6_a_real_id_is_accepted(text: str) -> None:
    assert placeholder(text) is None


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("word", ["", "null", "undefined", "None", "NULL", " ", "0"])
def test_b6_the_hash_of_nothing_is_refused_in_hex_and_base64(algorithm: str, word: str) -> None:
    digest = hashlib.new(algorithm, word.encode()).digest()
    padded = base64.b64encode(digest).decode()
    url = base64.urlsafe_b64encode(digest).decode()
    for text in (digest.hex(), digest.hex().upper(), padded, padded.rstrip("="), url, url.rstrip("="),
                 f"{algorithm}:{digest.hex()}", f"0x{digest.hex()}"):  # fmt: skip
        assert placeholder(text) == identity_rules.HASH_OF_NOTHING
    assert placeholder(hashlib.new(algorithm, b"jane@example.com").hexdigest()) is None


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (" u7 ", "u7"), ("u7\xa0", "u7"), ("u1\u200b", "u1"), ("\ufeffu1", "u1"), ("u\u0308ser", "üser"), ("\tu1\r\n",
        "u1"),
        ("12345.0", "12345"), ("12345.00", "12345"), ("u\u00ad1", "u1"), ("\u202eu1\u202c", "u1"), ("Jane\xa0Doe",
        "Jane Doe"),
        ("\u2003u1\u3000", "u1"), ("100", "100"), ("1.50", "1.50"), ("U1", "U1"), ("u1\x1b", "u1"), ("\u2060u1", "u1"),
    ],
)  # fmt: skip
def test_b6_an_id_is_stored_in_its_normal_form(text: str, stored: str) -> None:
    assert normalized_id(text) == stored


def test_b6_a_nul_is_not_removed_so_that_it_is_always_refused() -> None:
    assert normalized_id("u\0") == "u\0"


@given(st.text(max_size=40) | st.from_regex(r"[ \u200b\ufeff]*-?[0-9]{1,20}\.0*[ \x00-\x1f]*", fullmatch=True))
@example("\u200b\u0308")
@example("1.0.0")
def test_the_normal_form_is_its_own_normal_form_and_judged_alike(text: str) -> None:
    stored = normalized_id(text)
    assert normalized_id(stored) == stored
    assert unicodedata.is_normalized("NFC", stored)
    assert placeholder(text) == placeholder(stored)


@given(st.uuids(version=4), st.sampled_from([str, lambda each: each.hex, lambda each: f"{{{each}}}"]))
def test_random_uuids_are_accepted_in_every_spelling(uuid: object, spell: object) -> None:
    assert placeholder(spell(uuid)) is None  # type: ignore[operator]


@given(
    st.sampled_from(WORDS),
    st.sampled_from(["{{%s}}", "${%s}", "(%s)", "<%s>", "[%s]", '"%s"', "%%7B%s%%7D", "__%s__", " %s\t"]),
)
def test_a_word_is_refused_in_all_wrappings_and_cases(word: str, wrapping: str) -> None:
    for spelled in (word, word.upper(), word.title()):
        assert placeholder(wrapping % spelled) is not None


def test_a_tenant_adds_to_the_rules_and_takes_back() -> None:
    rules = IdentityRules({"acme": ["Kiosk-1"], "*": ["call-centre"]}, {"acme": ["test", "call-centre"]})
    assert rules.broken("acme", " kiosk-1 ") == identity_rules.LISTED
    assert rules.broken("other", "kiosk-1") is None
    assert rules.broken("other", "call-centre") == identity_rules.LISTED
    assert rules.broken("acme", "call-centre") is None
    assert rules.broken("acme", "Test") is None
    assert rules.broken("other", "test") == identity_rules.WORD
    assert rules.broken("acme", "null") == identity_rules.WORD


def test_the_rule_of_a_record_names_the_field_and_never_the_id() -> None:
    record = {"tenant_id": "acme", "event_id": "e", "anonymous_id": "{{visitor_secret}}", "occurred_at": 10**15,
              "platform": "x", "channel": "direct"}  # fmt: skip
    broken = check_touchpoint(record)
    assert broken is not None
    assert broken.field == "anonymous_id"
    assert broken.rule == f"names nobody: {identity_rules.TEMPLATE}"
    assert "secret" not in broken.rule
