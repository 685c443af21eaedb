"""Tables of `attributary jobs`: the state of jobs, and their results in a few lines.

Invariant: ids, errors and names of channels reach the terminal without control characters. What is left out is named,
and `--json` has all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attributary.cli.tables import amount, count, number, plural, print_table, safe, share
from attributary.schemas.limits import NO_CURRENCY

if TYPE_CHECKING:
    from attributary.consumers.store.jobs.job_views import JobRow

_MAX_ROWS = 20
_MAX_INSIGHTS = 10


def done(row: JobRow) -> str:
    """Return the progress of a job as text."""
    return count(row.done) if row.total is None else f"{count(row.done)} of {count(row.total)}"


def fields(row: JobRow) -> dict[str, Any]:
    """Return all fields of a job, for JSON."""

    def text(moment: Any) -> str | None:
        return None if moment is None else str(moment.isoformat())

    return {
        "tenant": row.tenant_id,
        "job_id": row.job_id,
        "kind": row.kind,
        "parameters": dict(row.parameters),
        "state": row.state,
        "done": row.done,
        "total": row.total,
        "error": row.error,
        "result": None if row.result is None else dict(row.result),
        "attempts": row.attempts,
        "submitted_by": row.submitted_by,
        "submitted_at": text(row.submitted_at),
        "started_at": text(row.started_at),
        "heartbeat_at": text(row.heartbeat_at),
        "cancel_requested_at": text(row.cancel_requested_at),
        "finished_at": text(row.finished_at),
        "updated_at": text(row.updated_at),
    }


def print_jobs(rows: Sequence[JobRow]) -> None:
    """Print a table of jobs."""
    cells = [
        (row.tenant_id, safe(row.job_id), row.kind, _state(row), done(row), f"{row.submitted_at:%Y-%m-%d %H:%M:%S}",
         safe(row.error or ""))
        for row in rows
    ]  # fmt: skip
    print_table(("tenant", "job", "kind", "state", "done", "submitted (UTC)", "error"), cells, numbers=(4,))


def print_job(row: JobRow) -> None:
    """Print the state of a job, and its result in short."""
    print(f"{safe(row.job_id)} ({row.kind} of {row.tenant_id}): {_state(row)}, {done(row)} done")
    print(f"submitted {row.submitted_at:%Y-%m-%d %H:%M:%S} UTC by {safe(row.submitted_by or 'unknown')}")
    if row.heartbeat_at is not None:
        print(f"attempts: {row.attempts}; last heartbeat {row.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC")
    if row.error:
        print(f"error: {safe(row.error)}")
    if row.result is not None:
        _print_result(row, row.result)


def _state(row: JobRow) -> str:
    return "running, to be cancelled" if row.state == "running" and row.cancel_requested_at is not None else row.state


def _print_result(row: JobRow, result: Mapping[str, Any]) -> None:
    for line in [
        *_money(result),
        *_facts({name: value for name, value in result.items() if not _is_money(name, value)}),
    ]:
        print(line)
    _print_insights(result.get("insights"))
    if row.kind == "analyze_batch" and result.get("models"):
        _print_channels([(each["model"], each["channels"]) for each in result["models"]])
    elif row.kind == "analyze_journey" and result.get("models"):
        _print_touches(result)
    elif row.kind == "train" and "version" in result:
        print(
            f"the version: attributary models show {result.get('model', 'markov')} {result['version']} "
            f"--tenant {row.tenant_id}"
        )
        # last, where it is seen: a version that was trained may not be good for crediting
        version_status = result.get("metadata", {}).get("diagnostics", {}).get("status", "ok")
        if version_status != "ok":
            print(f"status of the version: {safe(version_status)}")
    print("all fields: --json")


def _is_money(name: str, value: Any) -> bool:
    return name.endswith("_micros") and isinstance(value, Mapping) and all(isinstance(v, int) for v in value.values())


def _money(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each amount by currency: net value: 7,029 JPY, 19.99 EUR."""
    for name, value in result.items():
        if _is_money(name, value):
            worth = [amount(micros, currency) for currency, micros in value.items() if currency != NO_CURRENCY]
            yield f"{safe(name.removesuffix('_micros').replace('_', ' '))}: {safe(', '.join(worth)) or 'none'}"


def _print_insights(insights: Any) -> None:
    """Print the findings that passed their test, each a sentence."""
    texts = [each["text"] for each in insights or () if isinstance(each, Mapping) and each.get("text")]
    if texts:
        print("insights:")
    for text in texts[:_MAX_INSIGHTS]:
        print(f"- {safe(text)}")
    if len(texts) > _MAX_INSIGHTS:
        print(f"and {plural(len(texts) - _MAX_INSIGHTS, 'insight')} more")


def _facts(result: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for every plain value, two levels deep; what is larger is named and counted."""
    lines, larger = [], []
    for name, value in result.items():
        if name == "insights" and not prefix:
            continue  # shown as sentences
        if isinstance(value, Mapping) and not prefix:
            inner = _facts(value, f"{name}.")
            lines += inner if len(inner) <= _MAX_ROWS else [f"{name}: {len(value)} entries"]
        elif isinstance(value, Mapping | list):
            if len(value) <= 3 and not any(isinstance(each, Mapping | list) for each in _values(value)):
                lines.append(f"{prefix}{safe(name)}: {_short(value)}")
            else:
                larger.append(f"{prefix}{safe(name)}: {len(value)} entries")
        else:
            lines.append(f"{prefix}{safe(name)}: {_short(value)}")
    return lines + larger


def _values(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{safe(str(name))} {_short(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_short(each) for each in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "n/a"}[value]
    if isinstance(value, float):
        return f"{value:,.4g}"
    return count(value) if isinstance(value, int) else safe(str(value))


def _print_channels(models: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Print the shares of channels, a column a model; in the order of the first model."""
    shares = {model: {row["name"]: row["share"] for row in rows} for model, rows in models}
    names = list(dict.fromkeys(row["name"] for _, rows in models for row in rows))
    cells = [(safe(name), *(share(of.get(name)) for of in shares.values())) for name in names[:_MAX_ROWS]]
    print_table(("channel", *shares), cells, numbers=range(1, len(shares) + 1))
    if len(names) > _MAX_ROWS:
        print(f"and {len(names) - _MAX_ROWS} channels more")


def _print_touches(result: Mapping[str, Any]) -> None:
    models = result["models"]
    touches = result["touchpoints"]
    cells = [
        (safe(touch["channel"]), touch["interaction"], *(number(each["credits"][place], ".3f") for each in models))
        for place, touch in enumerate(touches[:_MAX_ROWS])
    ]
    columns = ("channel", "interaction", *(each["model"] for each in models))
    print_table(columns, cells, numbers=range(2, len(columns)))
    if len(touches) > _MAX_ROWS:
        print(f"and {len(touches) - _MAX_ROWS} touchpoints more")
