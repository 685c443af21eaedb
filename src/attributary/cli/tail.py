"""`attributary tail`: read the topics as a subscriber would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attributary.cli.tables import amount, plural, safe
from attributary.cli.tenant_option import AnyTenant

_KINDS = {
    "results": "result",
    "touchpoints": "touchpoint",
    "conversions": "conversion",
    "identities": "identity_link",
    "spend": "spend",
    "commands": "command",
    "jobs": "job",
    "job-status": "job_status",
}


def register(app: typer.Typer) -> None:
    """Add the command `tail`."""
    app.command("tail")(_tail)


def _tail(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(_KINDS)}.")] = "results",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, all fields, micros as integers.")
    ] = False,
    tenant: AnyTenant = None,
    since: Annotated[
        str, typer.Option("--from", help="Records from this time on: 15m, beginning, ... (docs/reference/times.md).")
    ] = "end",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the end instead of waiting for more.")
    ] = False,
) -> None:
    """Show records of a topic as they arrive: committed ones only, joining no group and committing nothing.

    Example: attributary tail results --from beginning --until-end --json

    Example: attributary tail conversions --tenant acme --from 15m
    """
    import sys

    from attributary.cli.outcome import exit_codes, kafka_settings
    from attributary.cli.times import log_time
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.runtime.topic_reader import read_topic
    from attributary.schemas.result_layout import expand_result
    from attributary.schemas.topics import topic_of

    if what not in _KINDS:
        raise typer.BadParameter(f"one of {', '.join(_KINDS)}", param_hint="WHAT")
    since_ms = log_time(since, "--from")
    shown = 0
    with exit_codes():
        codec = make_codec(load(RegistrySettings))
        try:
            for record in read_topic(kafka_settings(), topic_of(_KINDS[what]), since_ms=since_ms, until_end=until_end):
                if record.value is None:  # erased, or compacted away: nothing is left to show
                    continue
                try:
                    fields = codec.decode(_KINDS[what], record.value)
                    if what == "results":
                        fields = expand_result(fields)
                except ValueError as error:  # of the codec, or models at odds with the touchpoints
                    sys.stderr.write(f"{record.place}: {error}\n")
                    continue
                if tenant is not None and fields["tenant_id"] != tenant:
                    continue
                print(json.dumps(fields, ensure_ascii=False) if as_json else _line(what, fields), flush=True)
                shown += 1
                if shown == limit:
                    return
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _line(what: str, fields: Mapping[str, Any]) -> str:
    from attributary.consumers.reports.fallback_notes import fallback_cause

    if what != "results":
        shown = {name: value for name, value in fields.items() if value not in (None, {}, []) and name != "user_data"}
        return safe("  ".join(f"{name}={value}" for name, value in shown.items()))
    head = (
        f"{fields['tenant_id']}  {fields['conversion_id']}  v{fields['version']} {fields['version_reason']}"
        f"{' final' if fields['is_final'] else ''}  {fields['conversion_type']}"
        f"  {amount(fields['net_value_micros'], fields['currency'])}"
        f"  {plural(fields['touchpoint_count'], 'touchpoint')}"
    )
    lines = [head]
    for model in fields["models"]:
        channels = ", ".join(
            f"{rollup['name']} {rollup['credit']:.0%}"
            for rollup in model["rollups"]
            if rollup["dimension"] == "channel" and rollup["credit"] > 0
        )
        rest = 1 - sum(rollup["credit"] for rollup in model["rollups"] if rollup["dimension"] == "channel")
        if channels and not model["fallback"] and rest >= 0.005:  # a model's baseline
            channels += f", unattributed {rest:.0%}"
        cause = fallback_cause(model["model"], model["model_version"], model["fallback"]) if model["fallback"] else ""
        note = f"  ({cause})" if cause else ""
        lines.append(f"    {model['model']:<16}{channels or 'unattributed'}{note}")
    return "\n".join(map(safe, lines))
