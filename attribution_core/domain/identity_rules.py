"""What is no identity: the one place that decides which ids name nobody, and in which form an id is stored.

Invariant: the answer depends on the text and on the tenant's own list only. Two spellings of one id that differ in
blanks at the ends, invisible characters or Unicode form are one id: ``normalized_id`` is idempotent, and
``placeholder`` answers alike for a text and its normalised form.

Exports, template engines and trackers write placeholders where an id is missing. Joined on such a text, thousands of
strangers become one person. docs/schemas.md lists the kinds for users.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

EVERY_TENANT = "*"

WORD = "must not be a word for a missing id, such as null, 0 or anonymous"
BLANK = "must hold a letter or a digit"
REPEATED = "must not be one character repeated, such as 000000 or 11111111-1111-1111-1111-111111111111"
SAMPLE = "must not be an example id, or a constant that many devices share"
HASH_OF_NOTHING = "must not be the hash of an empty text or of a placeholder"
TEMPLATE = "must not be a template that was not filled in, such as {{user_id}} or __CLICKID__"
OBJECT = "must not be the printed form of an object, such as [object Object]"
LOST_DIGITS = "must not be a number in exponent form: digits are lost, write ids as text"
LISTED = "must not be on the tenant's list of ids that name nobody"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that stand for a missing id. Lower case, without punctuation around them.
_ABSENT = _words(
    """
    null nil none nan nat na n/a n.a. n.a n/d n\\a undefined undef unknown unk unset empty blank missing void nothing
    notset not_set nul dbnull inf infinity invalid error anonymous anon anonym anonymized anonymised redacted
    removed deleted guest unauthenticated unidentified unassigned unavailable noid nouser noemail nomail noname
    notloggedin tbd tba todo dummy placeholder default xxx xx replaceme changeme lmy47d system
    unbekannt anonymer gast keine k.a. inconnu inconnue anonyme invité desconocido desconocida anonimo anónimo invitado
    nulo nula ninguno sconosciuto ospite nessuno onbekend anoniem okänd ukjent ukendt brak nieznany неизвестно
    неизвестный аноним гость 未知 匿名 不明 ゲスト 游客 访客
    """
)  # fmt: skip
# Words that say what an id would be of; alone they are names of fields.
_NOUNS = _words(
    """
    user users userid id ids uid uuid guid visitor visitorid customer customerid client clientid device deviceid
    anonymousid distinctid email session sessionid account accountid member memberid person personid contactid
    profileid cookieid subscriberid username test tester testuser true false array object string undefinedid
    """
)
_ALONE = _ABSENT | _NOUNS | _words(
    """
    0 -1 user_id anonymous_id distinct_id client_id device_id customer_id visitor_id session_id abc123 12345678
    123456789 1234567890 0123456789 \\n \\0 0x0 0x -0 nobody
    """
)  # fmt: skip
# What joins them: "not logged in", "undefined-undefined", "anonymousUser", "no e-mail address".
_JOINED = _ABSENT | _NOUNS | _words(
    """
    a n not no in logged set yet provided available applicable authenticated found given specified assigned known
    defined identified signed the is has value data mail address name cookie tracking browser key number field optional
    consent replace change me insert here your my some enter e direct other nicht gesetzt angemeldet connecté non noch
    """
)  # fmt: skip
# Examples of RFC 9562 and of much documentation; IMEI and MAC constants of emulators and of iOS;
# the ANDROID_ID that a bug gave to millions of devices (Android issue 10603).
_SAMPLES = frozenset(
    {
        "123e4567e89b12d3a456426614174000", "123e4567e89b12d3a456426655440000", "550e8400e29b41d4a716446655440000",
        "f81d4fae7dec11d0a76500a0c91e6bf6", "6ba7b8109dad11d180b400c04fd430c8", "6ba7b8119dad11d180b400c04fd430c8",
        "00112233445566778899aabbccddeeff", "0123456789abcdef0123456789abcdef", "0123456789abcdef", "123456789abcdef",
        "1234567890abcdef", "deadbeef", "deadbeefdeadbeefdeadbeefdeadbeef", "012345678912345", "012345678901234",
        "123456789012345", "020000000000", "9774d56d682e549c", "12345678123412341234123456789012",
        "12345678123412341234123456789abc", "xxxxxxxxxxxx4xxxyxxxxxxxxxxxxxxx",
    }
)  # fmt: skip
_HEX32 = re.compile("[0-9a-f]{32}")
_SAMPLES |= {str(UUID(text)) for text in _SAMPLES if _HEX32.fullmatch(text)}
_REPEATED_FROM = 6  # 11111 may be somebody's number
_SEPARATORS = str.maketrans("", "", "-_.:|/ ")
# One digit and, beside it, a UUID's version and variant: 11111111-1111-4111-8111-111111111111.
_ONE_DIGIT_UUID = re.compile(r"(.)\1{11}[1-8]\1{3}[89ab]\1{15}")

# Format characters, controls and fillers that nobody sees. A NUL is not among them: it is refused, not removed.
_INVISIBLE = re.compile(
    "[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_BLANKS = re.compile(r"[^\S ]|\u2800")
_WHOLE = re.compile(r"(-?[0-9]{1,15})\.0+")
_EXPONENT = re.compile(r"-?[0-9](?:[.,][0-9]+)?e\+[0-9]{1,3}|-?[0-9][.,][0-9]+e[0-9]{1,3}")

_PLAIN = re.compile(r"[a-z0-9@.|/~=-][a-z0-9@._:|/~=-]*")
_WRAPPING = "\"'`\u00b4\u2018\u2019“”«»\u2039\u203a()[]{}<>\\#!?*%$~=;,:.|&^-_+/ "
_NO_MAIL = _words("noreply donotreply noemail nomail noaddress notprovided noemailaddress")
_DIGIT = re.compile("[0-9]")
_SHEET_ERRORS = _words("ref value name div/0 num spill calc getting_data field")
_UUID_IN_BRACES = re.compile(r"\{[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\}|\{[0-9a-f]{32}\}")
_OBJECT = re.compile(
    r"\[object .*|<.* at 0x[0-9a-f]+>|#<.*|<class .*|\{.*[\"'].*:.*\}|\[[\"'].*|\[function.*|function ?[a-z_$]*\(.*"
    r"|(?:async )?\(.*\) ?=>.*|promise ?\{.*|symbol\(.*|optional[.\[(].*"
    r"|(?:[a-z]+\.)+[a-z$]+@[0-9a-f]{5,8}|system\.[a-z.]*(?:object|string|guid|nullable)\b.*|array\(.*",
    re.DOTALL,
)
_TEMPLATE = re.compile(
    # Delimiters of template engines, mail merges and ad servers, as they are and percent-encoded.
    r".*(?:\{\{|\}\}|\$\{|#\{|%\{|\{%|\$\(|<%|%>|%7b|%257b|\[\[|\]\]|%5b%5b|\*\||\|\*|%%|\$\$|@@|\[%|%\]|<\?).*"
    # A name between marks: {id}, __ID__, %id%, [USER_ID], <user-id>, (not set), $user_id, :user_id, %s.
    r"|\{[^{}]*\}|__+[a-z].*__+|-?%[a-z][^%]*%-?|\[[a-z][a-z_. -]*\]|%5b[a-z_. -]+%5d|<[a-z/][^<>@]*>|\([^()]*\)"
    r"|\$[a-z_][a-z_.]*|:[a-z_]+|%[sdif@]|%[0-9]\$s|\$[0-9]|\{[0-9]*",
    re.DOTALL,
)
_WORDS = re.compile(r"[A-Z]?[a-zß-öø-ÿ]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Zß-öø-ÿ]+")

_HASHED_WORDS = (
    "", " ", "\n", "null", "none", "undefined", "nan", "nil", "0", "unknown", "anonymous", "guest", "n/a", "na",
    "false", "true", "-", "\\n", "(null)", "[object object]", "not set", "(not set)", "''", '""',
)  # fmt: skip


def _digests(words: Iterable[str]) -> Iterable[str]:
    """Yield the digests of texts in hex, base64 and base64url, with and without padding, in lower case."""
    for word in words:
        for algorithm in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
            digest = hashlib.new(algorithm, word.encode(), usedforsecurity=False).digest()
            yield digest.hex()
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                padded = encode(digest).decode().lower()
                yield from (padded, padded.rstrip("="))


_HASHES_OF_NOTHING = frozenset(
    _digests(
        {form(word) for word in _HASHED_WORDS for form in (str, str.upper, str.title)} | {"NaN", "[object Object]"}
    )
)
# An id of this form is refused for being a fixed text, or for repeating one character, and for nothing else.
_ORDINARY = re.compile(r"(?=[^0-9]*[0-9])(?![0-9][.]|0[xX])[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_FIXED = _HASHES_OF_NOTHING | _ALONE | _SAMPLES


def normalized_id(text: str) -> str:
    """Return the form of an id under which it is stored and compared.

    Unicode NFC, without invisible characters (controls, zero-width and format characters, fillers) and without blanks
    of any kind at the ends; a blank inside is one space. ``12345.0``, a whole number that passed through a double,
    becomes ``12345``. Upper and lower case stay: platforms and shops tell ids apart by it.
    """
    if text.isascii() and text.isprintable() and text[:1] != " " and text[-1:] not in {" ", "0"}:
        return text
    if not text.isascii() or not text.isprintable():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        text = _BLANKS.sub(" ", text)
    text = text.strip(" ")
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def placeholder(text: str) -> str | None:
    """Return the rule by which a text names nobody in particular; None for a text that may be an id.

    The rule never quotes the text, so it may be logged.
    """
    # Most ids are of this form, and only a fixed text can be wrong with it. The hot path pays for this path only.
    if _ORDINARY.fullmatch(text) and text[0] != text[-1] and not (text[-1] == "0" and "." in text):
        lowered = text.lower()
        return _fixed(lowered) if lowered in _FIXED else None
    return _judged(text)


@lru_cache(maxsize=16_384)
def _judged(text: str) -> str | None:
    text = normalized_id(text)
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold().strip()
    rule = _fixed(folded) or _of_one_character(folded.translate(_SEPARATORS))
    if rule is None and _EXPONENT.fullmatch(folded):
        rule = LOST_DIGITS
    if rule is None and _PLAIN.fullmatch(folded) is None:
        rule = _unusual(folded)
    if rule is None and "@" in folded:
        rule = _mail(text, folded)
    elif rule is None and _DIGIT.search(folded) is None and _all_listed(text):
        rule = WORD
    return rule


def _fixed(folded: str) -> str | None:
    if folded in _ALONE:
        return WORD
    if folded in _SAMPLES:
        return SAMPLE
    return HASH_OF_NOTHING if folded.rpartition(":")[2].removeprefix("0x") in _HASHES_OF_NOTHING else None


def _of_one_character(bare: str) -> str | None:
    """Judge a text without its separators."""
    if bare in _SAMPLES:
        return SAMPLE
    if _ONE_DIGIT_UUID.fullmatch(bare):
        return REPEATED
    repeated = bare.count(bare[:1]) == len(bare) and (bare[:1] == "0" or len(bare) >= _REPEATED_FROM)
    return (REPEATED if bare.isalnum() else BLANK) if repeated or not bare else None


def _unusual(folded: str) -> str | None:
    """Judge a text with characters that ids seldom have."""
    inner = folded.strip(_WRAPPING)
    if _OBJECT.fullmatch(folded) or folded in {"[]", "{}"}:
        return OBJECT
    if not any(map(str.isalnum, inner)):
        return BLANK
    if inner in _ABSENT or inner == "0" or (folded.startswith("#") and inner in _SHEET_ERRORS):
        return WORD
    if _TEMPLATE.fullmatch(folded) and not _UUID_IN_BRACES.fullmatch(folded):
        return TEMPLATE
    return WORD if inner in _ALONE else None


def _mail(text: str, folded: str) -> str | None:
    """Judge an address: none@none.com and test@test.com name nobody, test@shop.example may."""
    local, _, domain = folded.partition("@")
    name, brand = local.translate(_SEPARATORS), domain.partition(".")[0]
    if name in _NO_MAIL or name in _ABSENT:
        return WORD
    if _DIGIT.search(local) is None and _all_listed(text.partition("@")[0]) and (brand in _ALONE or brand == local):
        return WORD
    if "." in domain:
        return None
    return OBJECT if _OBJECT.fullmatch(folded) else TEMPLATE if _TEMPLATE.fullmatch(folded) else None


def _all_listed(text: str) -> bool:
    """Tell whether a text without digits is made of listed words only: "not logged in", "undefined-undefined"."""
    words = [word.lower() for word in _WORDS.findall(text)]
    if len(words) == 1:
        half = words[0][: len(words[0]) // 2]
        return words[0] in _ALONE or (half in _ABSENT and words[0] == 2 * half)
    return bool(words) and set(words) <= _JOINED


class IdentityRules:
    """The built-in rules with what a tenant adds and takes back.

    Args:
        refuse: by tenant, or ``*`` for all: further ids that name nobody (a kiosk, a call centre's shared login).
        accept: by tenant, or ``*``: ids that a built-in rule refuses and that are real here, for example ``test``.

    Both are compared in normalised form and without case. ``accept`` wins over ``refuse`` of ``*``.
    """

    def __init__(
        self, refuse: Mapping[str, Iterable[str]] | None = None, accept: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._refuse = _folded(refuse)
        self._accept = _folded(accept)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> IdentityRules:
        """Return the rules of a document: ``refuse`` and ``accept``, each a list of texts by tenant or ``*``.

        Raises:
            ValueError: names the part that is something else.
        """
        if unknown := document.keys() - {"refuse", "accept"}:
            raise ValueError(f"{min(map(str, unknown))} is not known; expected refuse, accept")
        for part, lists in document.items():
            if not isinstance(lists, Mapping):
                raise ValueError(f"{part} must hold lists of ids by tenant")  # noqa: TRY004  # one class for documents
            for tenant, texts in lists.items():
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                    raise ValueError(f"{part}.{tenant} must be a list of texts; put numbers into quotation marks")
        return cls(document.get("refuse"), document.get("accept"))

    def extended(self, refuse: Mapping[str, Iterable[str]], accept: Mapping[str, Iterable[str]]) -> IdentityRules:
        """Return these rules with further lists by tenant; what a list of these has stays."""
        if not refuse and not accept:
            return self
        found = IdentityRules()
        found._refuse = _joined(self._refuse, _folded(refuse))
        found._accept = _joined(self._accept, _folded(accept))
        return found

    def broken(self, tenant_id: str, text: str) -> str | None:
        """Return the rule by which an id names nobody in this tenant; None for one that may name a person."""
        if not self._refuse and not self._accept:
            return placeholder(text)
        folded = normalized_id(text).casefold()
        if folded in self._refuse.get(tenant_id, ()):
            return LISTED
        if folded and (folded in self._accept.get(tenant_id, ()) or folded in self._accept.get(EVERY_TENANT, ())):
            return None
        return LISTED if folded in self._refuse.get(EVERY_TENANT, ()) else placeholder(text)


def _folded(lists: Mapping[str, Iterable[str]] | None) -> dict[str, frozenset[str]]:
    return {
        tenant: frozenset(normalized_id(text).casefold() for text in texts) for tenant, texts in (lists or {}).items()
    }


def _joined(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {tenant: one.get(tenant, frozenset()) | other.get(tenant, frozenset()) for tenant in {**one, **other}}


BUILT_IN = IdentityRules()
