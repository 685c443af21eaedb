"""What a job asks for: its parameters, which come as texts, read and checked.

Times are ISO 8601 with an offset, or microseconds UTC. Flags are true or false. Lists are separated by commas.
Invariant: a parameter that the kind does not know, or a value that cannot be read, fails the job with the parameter's
name before anything is read.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attributary.attribution_core.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.lookback import MICROS_PER_DAY

from .learning import Closing, Window

_WINDOW = frozenset({"from", "to", "conversion_type", "closing"})
PARAMETERS: Mapping[str, frozenset[str]] = {
    "train": _WINDOW | {"model", "currency", "settings", "activate", "half_life_days"},
    "activate": frozenset({"model", "version"}),
    "rollback": frozenset({"model", "version"}),
    "backtest": _WINDOW | {"split", "model"},
    "analyze_journey": frozenset({"conversion_id"}),
    "analyze_batch": _WINDOW | {"platform", "campaign", "user_id", "anonymous_id"},
    "cancel": frozenset({"target_job_id"}),
}
"""The parameters of each kind of job."""

_FLAGS = {"true": True, "false": False}


class JobParameterError(ValueError):
    """A parameter that is missing, unknown or unreadable; the text names it."""


class Parameters:
    """The parameters of one job.

    Args:
        kind: of the job.
        texts: as they were submitted.

    Raises:
        JobParameterError: one of them is unknown to the kind.
    """

    def __init__(self, kind: str, texts: Mapping[str, str]) -> None:
        self._texts = texts
        unknown = set(texts) - PARAMETERS[kind]
        if unknown:
            known = ", ".join(sorted(PARAMETERS[kind]))
            raise JobParameterError(f"{min(unknown)}: {kind} does not take it; it takes {known}")

    def text(self, name: str) -> str | None:
        """Return a text, None when it is missing or empty."""
        return self._texts.get(name) or None

    def required(self, name: str) -> str:
        """Return a text that must be there.

        Raises:
            JobParameterError: it is not.
        """
        text = self.text(name)
        if text is None:
            raise JobParameterError(f"{name}: must be given")
        return text

    def whole(self, name: str) -> int | None:
        """Return a positive whole number, None when it is missing.

        Raises:
            JobParameterError: it is none.
        """
        text = self.text(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise JobParameterError(f"{name}: must be a positive whole number")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a flag; false when it is missing.

        Raises:
            JobParameterError: it is neither true nor false.
        """
        text = self.text(name) or "false"
        if text not in _FLAGS:
            raise JobParameterError(f"{name}: must be true or false")
        return _FLAGS[text]

    def names(self, name: str) -> tuple[str, ...]:
        """Return a list, empty when it is missing."""
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def time(self, name: str) -> int | None:
        """Return a time, microseconds UTC; None when it is missing.

        Raises:
            JobParameterError: it is no time.
        """
        text = self.text(name)
        try:
            return None if text is None else parse_time(text)
        except ValueError as error:
            raise JobParameterError(f"{name}: {error}") from None

    def settings(self) -> dict[str, Any]:
        """Return the model's settings, a JSON object; empty when they are missing.

        Raises:
            JobParameterError: they are none.
        """
        text = self.text("settings") or "{}"
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise JobParameterError("settings: must be a JSON object")
        return found

    def days(self, name: str) -> int | None:
        """Return a positive number of days, as microseconds; None when it is missing.

        Raises:
            JobParameterError: it is none.
        """
        text = self.text(name)
        try:
            micros = None if text is None else round(float(text) * MICROS_PER_DAY)
        except (ValueError, OverflowError):
            micros = 0
        if micros is not None and micros <= 0:
            raise JobParameterError(f"{name}: must be a positive number of days")
        return micros

    def window(self, tenant_id: str) -> Window:
        """Return the window of journeys to read.

        Raises:
            JobParameterError: it ends before it begins, or one of its parameters cannot be read.
        """
        since, until = self.time("from"), self.time("to")
        if since is not None and until is not None and since >= until:
            raise JobParameterError("to: must be later than from")
        return Window(
            tenant_id,
            since,
            until,
            frozenset(self.names("conversion_type")),
            self._person(),
            self._closing(),
        )

    def _closing(self) -> Closing:
        try:
            return Closing(self.text("closing") or Closing.SWEPT)
        except ValueError:
            raise JobParameterError(f"closing: must be one of {', '.join(Closing)}") from None

    def _person(self) -> str | None:
        user, device = self.text("user_id"), self.text("anonymous_id")
        if user and device:
            raise JobParameterError("user_id, anonymous_id: only one may be given")
        return USER_PREFIX + user if user else ANONYMOUS_PREFIX + device if device else None


def parse_time(text: str) -> int:
    """Return the microseconds UTC of an ISO 8601 time with an offset, of a date (its midnight UTC), or of microseconds.

    Raises:
        ValueError: it is none of these.
    """
    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an ISO 8601 time with an offset, a date, or microseconds UTC") from None
    if moment.tzinfo is None:
        if "T" in text or " " in text or ":" in text:
            raise ValueError("must have an offset from UTC, for example Z or +02:00")
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
