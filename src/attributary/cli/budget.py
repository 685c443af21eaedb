"""`attributary budget plan`: split a budget by what experiments measured, or say which test would help most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.tenant_option import usual_tenant

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
        Path | None,
        typer.Argument(
            help="CSV or Parquet: channel, design, spend_from, spend_to, effect, standard_error. Default: stored ones."
        ),
    ] = None,
    *,
    spend: Annotated[list[str], typer.Option(help="CHANNEL=AMOUNT: present spend per period; for each channel.")],
    budget: Annotated[
        float | None, typer.Option(min=0, help="To be spent per period. Default: as much as now.")
    ] = None,
    move: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="How far a channel may be moved, share of its present spend.")
    ] = 0.2,
    fixed: Annotated[list[str] | None, typer.Option(help="Channel that keeps its spend; may be repeated.")] = None,
    tenant: Annotated[
        str, typer.Option(help="With its stored experiments. Default: ATTRIBUTION_TENANT.", callback=usual_tenant)
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=366, help="Stored experiments: spends are for so many days.")] = 1,
    draws: Annotated[int, typer.Option(min=50, max=5_000, help="Draws of the estimates.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same plan.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Split a budget over channels, where experiments say how total sales answer to spend.

    A curve needs at least two changes of spend at three levels, varied by chance: designs geo, person, switchback,
    holdout, randomised. Spend that followed demand is refused, because its slope is several times the true one. The
    plan moves each channel by 20 % at most and stays inside the tested range. It is the best one on average over draws
    of the curves, and promises its average. It is recommended only if that is above 0, it is better in 80 % of draws
    and the channels differ by more than noise; otherwise the test that would help most is named. Without a file the
    tenant's stored experiments are read (attributary experiment add). Nothing is sent to an ad platform.

    Exit codes: 0 a plan is recommended, 1 none is, 2 the file or an option cannot be used.

    Example: attributary budget plan experiments.csv --spend search=1000 --spend social=1000

    Example: attributary budget plan --tenant acme --days 7 --spend search=7000 --spend social=4200
    """
    from attributary.attribution_core.budget.recommend import PlanOptions, plan_budget
    from attributary.cli.outcome import say
    from attributary.cli.tables import print_json

    current = _spends(spend)
    if experiments is None and not tenant:
        raise typer.BadParameter(
            "must be given, or a file of experiments, or ATTRIBUTION_TENANT set", param_hint="--tenant"
        )
    if unknown := sorted(set(fixed or ()) - current.keys()):
        raise typer.BadParameter(f"'{unknown[0]}' has no --spend", param_hint="--fixed")
    found = _file_curves(experiments, list(current), draws, seed) if experiments else None
    curves, refused = found or _stored_curves(tenant, list(current), days, draws, seed)
    if len(curves) < _FEWEST:
        for text in refused:
            say(text)
        say(
            "no recommendation: a split needs the curves of two channels; the test that would help most is one of these"
        )
        without = next(name for name in current if name not in {each.channel for each in curves})
        say(f"plan it: {_test_command(without, current[without] * move / days, tenant)}")
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
        _print(plan, curves, refused, _test_command(plan.best_test, current[plan.best_test] * move / days, tenant))
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


def _file_curves(file: Path, channels: list[str], draws: int, seed: int) -> tuple[list[Curve], list[str]]:
    """Return the curves of a file's experiments, and the sentences of channels without one."""
    from attributary.attribution_core.budget.curves import NoCurveError, fit_curve
    from attributary.cli.outcome import say
    from attributary.cli.table_files import FileError

    try:
        tests = _read(file)
    except FileError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    curves, refused = [], []
    for channel in channels:
        try:
            curves.append(fit_curve(tests.get(channel, []), draws, seed))
        except NoCurveError as error:
            refused.append(str(error) if channel in tests else f"{channel}: the file has no experiment with it")
    return curves, refused


def _stored_curves(tenant: str, channels: list[str], days: int, draws: int, seed: int) -> tuple[list[Curve], list[str]]:
    from attributary.attribution_core.budget.experiments import stored_curves
    from attributary.cli.outcome import database
    from attributary.consumers.store.spend.experiments import experiments

    with database("attributary-budget", tenant=tenant) as connection:
        stored = [each.experiment for each in experiments(connection, tenant)]
    return stored_curves(stored, channels, days, draws, seed)


def _test_command(channel: str, change: float, tenant: str) -> str:
    """Return the command that plans a test of a channel; the change is a day's."""
    from shlex import quote

    place = f" --tenant {tenant}" if tenant else ""
    return f"attributary experiment plan {quote(channel)}{place} --change {change:.2f}"


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


def _print(plan: BudgetPlan, curves: list[Curve], refused: list[str], test_command: str) -> None:
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
        f"\ngain {plan.gain:+.1%} of the present response; by the estimates alone {plan.raw_gain:+.1%}; "
        f"90 % of draws {low:+.1%} to {high:+.1%}; better in {plan.certainty:.0%} of them"
    )
    if plan.is_recommended:
        print("recommended")
    else:
        print(
            f"no recommendation; the test that would help most is one of {safe(plan.best_test)}: knowing it exactly "
            f"would gain {plan.test_worth:.2%}"
        )
        print(f"plan it: {safe(test_command)}")
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
