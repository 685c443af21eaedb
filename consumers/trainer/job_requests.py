"""The parameters of a job: texts, parsed and checked.

Times are texts of `time_grammar`; relative ones count from the submission. Flags are true or false. Lists are
separated by commas.

Invariant: an unknown parameter or an invalid value fails the job before anything is read from the store, and the error
names the parameter. `Parameters.check` gives the submitter and the trainer the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.time_grammar import END, TimeError, parse_time
from attributary.consumers.training.model_settings import (
    NOT_FOR_POISSON,
    check_model_name,
    check_settings,
    half_life_micros,
    read_json,
)
from attributary.consumers.training.read_journeys import Closing, Window
from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY

_WINDOW = frozenset({"from", "to", "conversion_type", "closing"})
PARAMETERS: Mapping[str, frozenset[str]] = {
    "train": _WINDOW | {"model", "currency", "settings", "activate", "half_life_days", "force"},
    "activate": frozenset({"model", "version", "force"}),
    "rollback": frozenset({"model", "version"}),
    "backtest": _WINDOW | {"split", "model"},
    "analyze_journey": frozenset({"conversion_id"}),
    "analyze_batch": _WINDOW | {"platform", "campaign", "user_id", "anonymous_id"},
    "cancel": frozenset({"target_job_id"}),
}
"""The parameters of each kind of job."""

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "activate": ("model",),
    "rollback": ("model",),
    "backtest": ("split",),
    "analyze_journey": ("conversion_id",),
    "cancel": ("target_job_id",),
}
_FLAGS = {"true": True, "false": False}
_MAX_VERSION = 999_999_999


class JobParameterError(ValueError):
    """A parameter that is missing, unknown or unreadable; the text names it."""


class Parameters:
    """The parameters of one job.

    Args:
        kind: of the job.
        texts: as they were submitted.
        submitted_at: when, microseconds UTC, so that ``30d`` means the same when the job starts again.

    Raises:
        JobParameterError: one of them is unknown to the kind.
    """

    def __init__(self, kind: str, texts: Mapping[str, str], submitted_at: int | None = None) -> None:
        self._kind = kind
        self._texts = texts
        self._submitted_at = submitted_at
        unknown = set(texts) - PARAMETERS[kind]
        if unknown:
            known = ", ".join(sorted(PARAMETERS[kind]))
            raise JobParameterError(f"{min(unknown)}: {kind} does not take it; it takes {known}")
        empty = [name for name, text in texts.items() if not text.strip(", ")]
        if empty:  # a variable that was not set must not mean "all"
            raise JobParameterError(f"{min(empty)}: must not be empty")

    def check(self, tenant_id: str) -> None:
        """Parse all parameters of the kind, as the trainer will.

        Args:
            tenant_id: tenant of the job.

        Raises:
            JobParameterError: something is missing or cannot be read.
        """
        known = PARAMETERS[self._kind]
        for name in _REQUIRED.get(self._kind, ()):
            self.required(name)
        for name in ("activate", "force"):
            self.flag(name)
        window, split = self.window(tenant_id), self.time("split")
        if split is not None and not (window.since or 0) < split < (window.until or END):
            raise JobParameterError("split: must be between from and to")
        self.whole("version")
        self.currency()
        if "model" in known:
            self.model()
        if "settings" in known:
            self.settings()
            self.half_life()
            for name in ("half_life_days", "currency"):
                if self.text(name) and self.model() == "poisson":
                    raise JobParameterError(f"{name}: is not for poisson, {NOT_FOR_POISSON}")

    def model(self) -> str:
        """Return which trained model is meant; markov when it is missing.

        Raises:
            JobParameterError: it is none.
        """
        model = self.text("model") or "markov"
        try:
            check_model_name(model)
        except ValueError as error:
            raise JobParameterError(f"model: {error}") from None
        return model

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
        """Return a positive whole number of at most nine digits."""
        text = self.text(name)
        if text is None:
            return None
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_VERSION))
        if not digits or int(text) < 1:
            raise JobParameterError(f"{name}: must be a whole number from 1 to {_MAX_VERSION:,}")
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
        """Return a time, microseconds UTC; None when it is missing or sets no bound.

        Raises:
            JobParameterError: it is no time.
        """
        text = self.text(name)
        try:
            micros = None if text is None else parse_time(text, self._submitted_at)
        except TimeError as error:
            raise JobParameterError(f"{name}: {error}") from None
        return None if micros in (0, END) else micros

    def currency(self) -> str | None:
        """Return a currency.

        Raises:
            JobParameterError: there is no such one.
        """
        text = self.text("currency")
        if text is not None and text not in MINOR_UNIT_MICROS and text != NO_CURRENCY:
            raise JobParameterError(f"currency: {text} is no ISO 4217 code")
        return text

    def settings(self) -> dict[str, Any]:
        """Return the model's settings, a JSON object.

        Raises:
            JobParameterError: it is none, or the model does not take them.
        """
        try:
            found = read_json(self.text("settings") or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise JobParameterError("settings: must be a JSON object")
        try:
            check_settings(self.model(), found)
        except ValueError as error:
            raise JobParameterError(f"settings: {error}") from None
        return found

    def half_life(self) -> int | None:
        """Return the half-life, microseconds."""
        text = self.text("half_life_days")
        try:
            return None if text is None else half_life_micros(_number(text))
        except ValueError as error:
            raise JobParameterError(f"half_life_days: {error}") from None

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


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # outside of all bounds
