"""How long a destination asks to wait, from its headers."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_WAIT_SECONDS = 3_600.0  # a larger wish is a broken header; after an hour it may say so again


def retry_after_seconds(headers: Mapping[str, str], now_seconds: float | None = None) -> float:
    """Read Retry-After: seconds, or a date when the time is given; 0 when there is none (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT_SECONDS)
    if text and now_seconds is not None:
        try:
            at = email.utils.parsedate_to_datetime(text).timestamp()
        except ValueError:
            return 0.0
        return min(max(0.0, at - now_seconds), LONGEST_WAIT_SECONDS)
    return 0.0
