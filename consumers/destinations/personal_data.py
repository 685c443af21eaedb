"""Personal data in URLs and free properties: found and taken out before anything leaves.

Contract: `clean_url` and `is_personal` are pure and never raise, whatever the text. Google forbids personal data in
Analytics, and Meta takes it hashed in user_data only; landing pages and forms put it into addresses all the same. The
rules are by name (email=, phone=, first_name=, ...) and by content (an e-mail address anywhere, percent-encoded or not;
a value that is a phone number with its plus). They find the common cases and prove nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

_NAMES = frozenset((
    "email", "emailaddress", "mail", "mailaddress", "useremail", "customeremail", "emailid", "emailhash", "login",
    "phone", "phonenumber", "telephone", "tel", "mobile", "mobilenumber", "mobilephone", "cellphone", "whatsapp",
    "msisdn", "fax", "firstname", "lastname", "fullname", "surname", "forename", "givenname", "familyname",
    "middlename", "fname", "lname", "customername", "contactname", "recipientname", "billingname", "shippingname",
    "dateofbirth", "birthdate", "birthday", "dob", "ssn", "socialsecuritynumber", "passport", "passportnumber",
    "taxid", "iban", "creditcard", "cardnumber", "ccnumber", "address", "address1", "address2", "addressline1",
    "addressline2", "street", "streetaddress", "billingaddress", "shippingaddress", "password", "passwd", "pwd",
    "vorname", "nachname", "telefon", "strasse", "geburtsdatum", "prenom", "telephoneportable", "apellido", "correo",
    "telefono", "cognome", "ipaddress",
))  # fmt: skip
# What stands around a name: billing[email], user.email, contact-email, data[user][phone].
_LAST_WORD = re.compile(r"[^a-z0-9]+")
_EMAIL = re.compile(r"[^\s@/?#&=;:,<>\"'()]+@[^\s@/?#&=;:,<>\"'()]+\.[^\s@/?#&=;:,.<>\"'()]{2,}")
_DECODINGS = 3  # a link in a link is encoded once more each time
_PHONE = re.compile(r"\+[0-9][0-9 ()/.-]{7,20}")
_FLAGS = frozenset(("", "0", "1", "true", "false", "yes", "no", "y", "n", "on", "off"))  # mobile=1 is no number
REPLACED = "(removed)"


def is_personal_name(name: str) -> bool:
    """Return whether a parameter or property of this name holds personal data."""
    return _named(name[:200])


@lru_cache(maxsize=4_096)
def _named(name: str) -> bool:
    words = [word for word in _LAST_WORD.split(_decoded(name).lower()) if word]
    joined = "".join(words)
    return joined in _NAMES or any("".join(words[start:]) in _NAMES for start in range(len(words)))


def holds_email(text: str) -> bool:
    """Return whether an e-mail address stands in a text, percent-encoded or not."""
    if "@" not in text and "%" not in text:
        return False
    return _EMAIL.search(_decoded(text)) is not None


def is_personal(name: str, text: str) -> bool:
    """Return whether a free property holds personal data, by its name or by an e-mail address or phone number in it."""
    return _is_personal(name, text)


def _is_personal(name: str, text: str) -> bool:
    if is_personal_name(name) and text.strip().lower() not in _FLAGS:
        return True
    return _PHONE.fullmatch(text.strip()) is not None or holds_email(text)


def clean_url(url: str) -> tuple[str, bool]:
    """Return a URL without personal data, and whether anything was taken out.

    Parameters of the query and of the fragment that hold personal data are dropped; a user name before the host is
    dropped; a segment of the path that holds an e-mail address becomes "(removed)". The rest stays byte for byte.
    """
    if "@" not in url and "%" not in url and "=" not in url:
        return url, False
    head, _, fragment = url.partition("#")
    head, mark, query = head.partition("?")
    address = _without_user(head)
    segments = [REPLACED if holds_email(part) else part for part in address.split("/")]
    cleaned = "/".join(segments)
    kept = _kept(query)
    if kept or (mark and not query):
        cleaned += mark + kept
    if fragment:
        route, question, parameters = fragment.partition("?")
        fragment = _kept(route) if not question else _kept(route) + question + _kept(parameters)
        cleaned += f"#{fragment}" if fragment.strip("?") else ""
    elif url.endswith("#"):
        cleaned += "#"
    return cleaned, cleaned != url


def _without_user(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _kept(query: str) -> str:
    """Return a query without the parameters that hold personal data."""
    if not query:
        return ""
    separator = ";" if "&" not in query and query.count("=") > 1 and ";" in query else "&"
    return separator.join(part for part in query.split(separator) if not _is_personal_parameter(part))


def _is_personal_parameter(part: str) -> bool:
    name, mark, text = part.partition("=")
    if not mark:
        return holds_email(part)
    return _is_personal(unquote_plus(name), unquote(text)) or holds_email(part)


def _decoded(text: str) -> str:
    for _ in range(_DECODINGS):
        plain = unquote(text)
        if plain == text:
            break
        text = plain
    return text
