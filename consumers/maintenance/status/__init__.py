"""The state of one installation: every part looked at side by side, each within seconds."""

from __future__ import annotations

from .report import Finding, Level, Report, worst
from .survey import CHECK_SECONDS, survey

__all__ = ["CHECK_SECONDS", "Finding", "Level", "Report", "survey", "worst"]
