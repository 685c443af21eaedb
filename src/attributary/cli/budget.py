"""`attributary budget plan`: split a budget by what experiments measured, or say which test would help most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    from attributary.attribution_core.budget.curves import Curve, SpendTest
    from attributary.attribution_core.budget.recommend import BudgetPlan

_COLUMNS = ("channel", "design", "spend_from", "spend_to", "effect", "standard_error")
_FEWEST = 2


def register(app: typer.Typer) -> None:
    """Add the group `budget`."""
    group = typer.Typer(no_args_is_help=True, help="Budgets by experiments, with a promise that holds.")
    group.command("plan")(_plan)
    group.callback()(lambda: None)
    app.add_typer(group, name="budget")


def _plan(
    experiments: Annotated[
        Path,
        typer.Argument(help="CSV or Parquet: channel, design, spend_from, spend_to, effect, standard_error."),
    ],
    *,
    spend: Annotated[list[str], typer.Option(help="CHANNEL=AMOUNT: present spend per period; for each channel.")],
    budget: Annotated[
        float | None, typer.Option(min=0, help="To be spent per period. Default: as much as now.")
    ] = None,
    move: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="How far a channel may be moved, share of its present spend.")
    ] = 0.2,
    fixed: Annotated[list[str] | None, typer.Option(help="Channel that keeps its spend; may be repeated.")] = None,
    draws: Annotated[int, typer.Option(min=50, max=5_000, help="Draws of the estimates.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same plan.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Split a budget over channels, where experiments say how total sales answer to spend.

    A curve needs at least two changes of spend at three levels, varied by chance: designs geo, person, switchback,
    holdout, randomised. Spend that followed demand is refused, because its slope is several times the true one. The
    plan moves each channel by 20 % at most and stays inside the tested range. Its promise is lowered by what an
    optimiser over-promises. It is recommended only if it then is above 0 and the plan is better in 80 % of draws;
    otherwise the test that would help most is named. Nothing is sent to an ad platform.

    Exit codes: 0 a plan is recommended, 1 none is, 2 the file or an option cannot be used.

    Example: attributary budget plan experiments.csv --spend search=1000 --spend social=1000
    """
    from attributary.attribution_core.budget.curves import NoCurveError, fit_curve
    from attributary.attribution_core.budget.recommend import PlanOptions, plan_budget
    from attributary.cli.outcome import say
    from attributary.cli.table_files import FileError
    from attributary.cli.tables import print_json

    current = _spends(spend)
    try:
        tests = _read(experiments)
    except FileError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    curves, refused = [], []
    for channel in current:
        try:
            curves.append(fit_curve(tests.get(channel, []), draws, seed))
        except NoCurveError as error:
            refused.append(str(error) if channel in tests else f"{channel}: the file has no experiment with it")
    if unknown := sorted(set(fixed or ()) - current.keys()):
        raise typer.BadParameter(f"'{unknown[0]}' has no --spend", param_hint="--fixed")
    if len(curves) < _FEWEST:
        for text in refused:
            say(text)
        say(
            "no recommendation: a split needs the curves of two channels; the test that would help most is one of these"
        )
        raise typer.Exit(exits.FAILED)
    options = PlanOptions(budget, move, draws, seed, frozenset(fixed or ()))
    try:
        plan = plan_budget(curves, current, options)
    except ValueError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    if as_json:
        print_json(_document(plan, curves, refused))
    else:
        _print(plan, curves, refused)
    raise typer.Exit(exits.DONE if plan.is_recommended else exits.FAILED)


def _spends(pairs: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in pairs:
        channel, equals, amount = pair.rpartition("=")
        try:
            value = float(amount)
        except ValueError:
            value = 0.0
        if not equals or not channel or not 0.0 < value < 1e15:
            raise typer.BadParameter("must be CHANNEL=AMOUNT, the amount above 0", param_hint="--spend")
        if channel in found:
            raise typer.BadParameter(f"'{channel}' is given twice", param_hint="--spend")
        found[channel] = value
    return found


def _read(file: Path) -> dict[str, list[SpendTest]]:
    """Return the experiments of a file by channel."""
    import math

    from attributary.attribution_core.budget.curves import SpendTest
    from attributary.cli.table_files import FileError, read_columns

    columns = read_columns(file)
    missing = [name for name in _COLUMNS if name not in columns.columns]
    if missing:
        raise FileError(file, f"has no column {missing[0]}; it needs {', '.join(_COLUMNS)}")
    found: dict[str, list[SpendTest]] = {}
    for place, cells in enumerate(zip(*(columns.columns[name] for name in _COLUMNS), strict=True)):
        line = columns.lines[place] if columns.lines else place + 1
        try:
            start, end, effect, error = map(float, cells[2:])
        except (TypeError, ValueError):
            raise FileError(file, f"line {line}: spends, effect and standard_error must be numbers") from None
        if (
            not all(map(math.isfinite, (start, end, effect, error)))
            or min(start, end) < 0
            or start == end
            or error <= 0
        ):
            raise FileError(file, f"line {line}: spends must be 0 or more and differ, standard_error above 0")
        channel, design = (str(cell).strip() for cell in cells[:2])
        found.setdefault(channel, []).append(SpendTest(channel, start, end, effect, error, design))
    return found


def _print(plan: BudgetPlan, curves: list[Curve], refused: list[str]) -> None:
    from attributary.cli.tables import print_table, safe

    print_table(
        ("channel", "now", "plan", "90 % of draws", "mROAS now", "then", "bound"),
        [
            (each.channel, f"{each.before:,.2f}", f"{each.after:,.2f}", f"{each.low:,.0f} to {each.high:,.0f}",
             f"{each.slope_before:.2f}", f"{each.slope_after:.2f}", each.bound)
            for each in plan.channels
        ],
        (1, 2, 3, 4, 5),
    )  # fmt: skip
    low, high = plan.interval
    print(
        f"\ngain {plan.gain:+.1%} of the present response; before the correction {plan.raw_gain:+.1%}; "
        f"90 % of draws {low:+.1%} to {high:+.1%}; better in {plan.certainty:.0%} of them"
    )
    if plan.is_recommended:
        print("recommended")
    else:
        print(
            f"no recommendation; the test that would help most is one of {safe(plan.best_test)}: knowing it exactly "
            f"would gain {plan.test_worth:.2%}"
        )
    for each in curves:
        print(f"{safe(each.channel)}: tested from {each.low:,.0f} to {each.high:,.0f}; nothing is said outside")
    for text in refused:
        print(f"left out, keeps its spend: {safe(text)}")
    print("The curves are of the periods of the experiments, and say what was true then.")


def _document(plan: BudgetPlan, curves: list[Curve], refused: list[str]) -> dict[str, Any]:
    return {
        **plan._asdict(),
        "channels": [each._asdict() for each in plan.channels],
        "interval": list(plan.interval),
        "curves": [each._asdict() for each in curves],
        "left_out": refused,
    }
