"""How long a destination asks to wait, from its headers."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_WAIT_SECONDS = 3_600.0  # a larger wish is a broken header; after an hour it may say so again


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Read Retry-After (RFC 9110, 10.2.3): seconds, or a date, which is measured from the answer's own Date.

    Args:
        headers: of the answer, names in lower case.

    Returns:
        0 when nothing is asked, or it cannot be read.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT_SECONDS)
    until, now = _timestamp(text), _timestamp(headers.get("date", ""))
    if until is None or now is None:
        return 0.0
    return min(max(0.0, until - now), LONGEST_WAIT_SECONDS)


def _timestamp(text: str) -> float | None:
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
