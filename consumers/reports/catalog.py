"""The catalogue of reports. Commands, HTTP, the page and the docs are made from it: a report is added here alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import change_reports as change
from . import credit_reports as credit
from . import path_reports as path
from . import time_reports as time
from .definition import Report

REPORTS: Sequence[Report] = (
    Report(
        "models",
        "Models side by side",
        "What does each model credit to each channel, and how sure is the ranking?",
        "Conversions of a channel are a sum of credits; with `(unattributed)` they are the number of conversions. "
        "The interval is that of a mean over conversions (90 %, normal). `change` compares with the first model "
        "asked for. A rank is certain when, by every model asked for, the interval is apart from those of all "
        "names above and below.",
        credit.MODEL_COLUMNS,
        ("models", "by"),
        credit.models,
    ),
    Report(
        "days",
        "Days: cash and accrual",
        "How many conversions, and how much credit, does each day have by the day of the conversion and by that of"
        " the touch?",
        "Cash dates all credit by the conversion, accrual dates each touch's credit by the touch. Over all days "
        "the sums are equal; what no touchpoint gets is dated by the conversion in both.",
        time.DAY_COLUMNS,
        ("model",),
        time.days,
    ),
    Report(
        "maturity",
        "How complete recent days are",
        "How much of what recent days will have in the end has arrived?",
        "The share of a day's final number that has arrived at its age, by the Kaplan-Meier estimator in reversed "
        "time over the days of the last 90 days, with Greenwood's 90 % interval. Cash: conversions, by the day "
        "that they were first reported. Accrual: credit of touches, by the day that their conversion was first "
        "reported. Null with fewer than 14 days or 50 arrivals, and for ages at which nothing had ever arrived.",
        time.MATURITY_COLUMNS,
        ("model",),
        time.maturity,
    ),
    Report(
        "paths",
        "Paths to conversion",
        "By which ways do people come to a conversion?",
        "Touchpoints in the lookback windows in the order of time; runs of one name stand once. Paths of more than 8 "
        "steps are one row a number of steps, `(9 steps)`. Rows beyond the limit are `(other)`, so the rows are all "
        "conversions. Paths of campaigns are always read from the results.",
        path.PATH_COLUMNS,
        ("by",),
        path.paths,
    ),
    Report(
        "path-lengths",
        "Path length",
        "How many touchpoints does a conversion take?",
        "Touchpoints in the lookback windows; `collapsed`: runs of one name count once.",
        path.LENGTH_COLUMNS,
        ("by",),
        path.lengths,
    ),
    Report(
        "lag",
        "Time to conversion",
        "How long before the conversion is the first touch, and the last?",
        "Conversion minus first touch in whole days, floor(seconds / 86,400); beside it conversion minus last touch.",
        path.LAG_COLUMNS,
        (),
        path.lags,
    ),
    Report(
        "assists",
        "Assists",
        "Which channels prepare conversions that others close?",
        "A channel assists a conversion when it is anywhere in the path before the last touch, and closes it when "
        "it is the last touch; it may do both.",
        credit.ASSIST_COLUMNS,
        ("by",),
        credit.assists,
    ),
    Report(
        "positions",
        "Early, mid, late",
        "Is a channel credited for the beginning or for the end of journeys?",
        "Of n touches n/4 rounded half up are early (none of one), n/4 rounded up are late, the rest are mid.",
        credit.POSITION_COLUMNS,
        ("model", "by"),
        credit.positions,
    ),
    Report(
        "cohorts",
        "Cohorts",
        "What do people bring over the months after their first conversion, by the channel that came first?",
        "People by month and first-touch channel of their first conversion of a type, among all that is stored. "
        "Net value: a refund lowers the month of its order. From and to choose the first conversions.",
        time.COHORT_COLUMNS,
        (),
        time.cohorts,
    ),
    Report(
        "restatements",
        "What changed for each channel",
        "What stood for each channel at an earlier moment, and what changed it since?",
        "Reported at that moment, plus the change by each reason, is what stands now; to the micro, and equal to "
        "`attributary results --as-of`. A version counts with its own period and currency: one that moves a "
        "conversion out of the period takes its credit off. From the roll-up conversions that were erased or retired "
        "since stay in what was reported, and leave by the reasons `erasure` and `retirement`.",
        change.CHANGE_COLUMNS,
        ("model", "by", "since"),
        change.restatements,
    ),
    Report(
        "unattributed",
        "What stands in no channel",
        "How much of the conversions do touchpoints get, and what becomes of the rest?",
        "`no touchpoint`: none in the lookback windows. `baseline`: what a model keeps for what would have "
        "happened anyway. `no credit`: the result is older than the model. `(erased)` and `(retired)`: no longer "
        "stored one by one.",
        credit.UNATTRIBUTED_COLUMNS,
        ("models",),
        credit.unattributed,
    ),
    Report(
        "quality",
        "Data quality",
        "What makes these numbers less sure?",
        "Counts over the touchpoints and conversions of the period, and over the results of the report. No roll-up has "
        "touchpoints: beside it the first 20,000 touchpoints and conversions that are found are checked, and the "
        "report says so where there are more; with `--source results` all are.",
        change.QUALITY_COLUMNS,
        ("models",),
        change.quality,
    ),
)
BY_NAME: Mapping[str, Report] = {report.name: report for report in REPORTS}
