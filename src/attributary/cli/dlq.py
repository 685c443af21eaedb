"""`attributary dlq list|show|redrive|close`: what could not be processed, why, another try, or the end of it."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tables import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.runtime.redrive import Letter

_LONGEST_REASON = 500
Stage = Literal["decode", "validate", "store", "send", "quarantine", "read"]

_PLACE = re.compile(r"(?P<topic>.+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")

_Topic = Annotated[
    str | None, typer.Option("--topic", help="Only records of this topic, for example attribution.conversions.v1.")
]
_Group = Annotated[str | None, typer.Option("--group", help="Only what this consumer group gave up.")]
_Stage = Annotated[Stage | None, typer.Option("--stage", help="Only what failed here.")]
_Text = Annotated[
    str | None, typer.Option("--match", help="Only letters with this text in their reason, field or origin.")
]
_Since = Annotated[
    str, typer.Option("--since", help="Letters from this time on: 1d, 2026-11-01, ... (docs/reference/times.md).")
]


def register(app: typer.Typer) -> None:
    """Add the group `dlq`."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: records that could not be processed (Kafka).")
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("redrive")(_redrive)
    group.command("close")(_close)
    app.add_typer(group, name="dlq")


def _list(
    *,
    topic: _Topic = None,
    group: _Group = None,
    stage: _Stage = None,
    match: _Text = None,
    since: _Since = "beginning",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, without the bytes.")] = False,
) -> None:
    """List dead letters, the oldest first: where, from where, why, how often tried.

    Example: attributary dlq list --stage validate --since 1d
    """
    from attributary.cli.tables import plural, print_table

    letters = list(_letters(topic, group, stage, match, since))
    if as_json:
        print_json([_document(letter) for letter in letters])
        return
    rows = [
        (
            _time(letter.failed_at_ms), letter.place, _tenant(letter) or "?", letter.stage, str(letter.attempts),
            letter.reason,
        )
        for letter in letters
    ]  # fmt: skip
    print_table(("given up", "place", "tenant", "stage", "tries", "reason"), rows, (4,))
    records = len({letter.origin for letter in letters})
    more = f" of {plural(records, 'record')}: each group that reads a topic writes its own" * (len(letters) > records)
    print(f"{plural(len(letters), 'dead letter')}{more}. One in full: attributary dlq show 'TOPIC[PARTITION]@OFFSET'")


def _show(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="As `dlq list` shows it: TOPIC[PARTITION]@OFFSET.")],
    fields: Annotated[
        bool, typer.Option("--fields", help="Also decode the record: its fields may be personal data.")
    ] = False,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; the bytes in base64.")] = False,
) -> None:
    """Show one dead letter in full: reason, origin, headers and bytes.

    Example: attributary dlq show 'attribution.conversions.v1.attribution.stitcher.dlq[0]@17'
    """
    found = _PLACE.fullmatch(place)
    if found is None:
        raise typer.BadParameter("must look like TOPIC[PARTITION]@OFFSET", param_hint="PLACE")
    letter = next((each for each in _read([found["topic"]], "beginning") if each.place == place), None)
    if letter is None:
        say(f"{place}: no such letter, or a later one supersedes it; see: attributary dlq list")
        raise typer.Exit(1)
    if as_json:
        decoded = {"fields": _fields(letter)} if fields else {}
        print_json(_document(letter) | {"value_base64": base64.b64encode(letter.value or b"").decode()} | decoded)
        return
    facts = {
        "reason": letter.reason,
        "found by": f"{letter.stage} of {letter.group}",
        "field": letter.field or "-",
        "record": letter.origin,
        "given up": _time(letter.failed_at_ms),
        "tries": str(letter.attempts),
        "key": repr(letter.key),
    }
    for name, text in facts.items():
        print(f"{name:<10}{text}")
    for name, value in letter.headers:
        print(f"header    {name}: {value.decode('utf-8', 'replace')}")
    print(f"value     {len(letter.value or b'')} bytes\n{_dump(letter.value or b'')}")
    if fields:
        print(_fields(letter))


def _redrive(
    *,
    topic: _Topic = None,
    group: _Group = None,
    stage: _Stage = None,
    match: _Text = None,
    since: _Since = "beginning",
    max_attempts: Annotated[int, typer.Option(min=1, help="Leave letters that have failed so often.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
) -> None:
    """Send dead letters to the topics that they came from, with their original key, bytes and headers.

    For when the cause is repaired: a schema was registered, a rule was relaxed, a destination takes events again. All
    groups of the topic read the record again; an event that one of them has already is recognised by its id. A record
    that fails again becomes a new letter with a higher count, in place of the old one.

    Example: attributary dlq redrive --topic attribution.conversions.v1 --stage decode --dry-run
    """
    from attributary.cli.outcome import exit_codes, kafka_settings
    from attributary.consumers.runtime.redrive import matching, redrive

    letters = list(_letters(topic, group, stage, match, since))
    chosen = list(matching(letters, most_attempts=max_attempts))[:limit]
    if dry_run:
        for letter in chosen:
            print(f"would send {letter.place} to {letter.topic}: {letter.reason}")
    else:
        with exit_codes():
            redrive(kafka_settings(), chosen, lambda letter: print(f"sent {letter.place} to {letter.topic}"))
    tired = sum(letter.attempts >= max_attempts for letter in letters)
    print(f"{len(chosen)} {'to send' if dry_run else 'sent'}, {tired} left after {max_attempts} tries")


def _close(
    place: Annotated[
        str | None,
        typer.Argument(metavar="PLACE", help="One, as `dlq list` shows it; else all by the options."),
    ] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why nobody needs to look at them; no personal data.")],
    topic: _Topic = None,
    group: _Group = None,
    stage: _Stage = None,
    match: _Text = None,
    since: _Since = "beginning",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be closed.")] = False,
) -> None:
    """Close dead letters that need no attention: they are listed and sent again no more.

    The letters stay in their topic for its retention, with a record behind them that holds the reason and names them.
    Exit code 1: there is no such letter.

    Example: attributary dlq close --match 'value_micros' --reason 'load test of November 3rd' --dry-run
    """
    from attributary.cli.outcome import kafka_settings
    from attributary.cli.tables import plural
    from attributary.consumers.runtime.redrive import close

    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise typer.BadParameter(f"must be 1 to {_LONGEST_REASON} characters", param_hint="--reason")
    if place is not None and _PLACE.fullmatch(place) is None:
        raise typer.BadParameter("must look like TOPIC[PARTITION]@OFFSET", param_hint="PLACE")
    letters = [each for each in _letters(topic, group, stage, match, since) if place in {None, each.place}]
    if not letters:
        say("no such letter is open; see: attributary dlq list")
        raise typer.Exit(exits.FAILED)
    if dry_run:
        for letter in letters:
            print(f"would close {letter.place}: {letter.reason}")
    else:
        close(kafka_settings(), letters, reason.strip())
    print(f"{plural(len(letters), 'dead letter')} {'to close' if dry_run else 'closed'}")


def _document(letter: Letter) -> dict[str, Any]:
    names = ("place", "origin", "group", "stage", "field", "reason", "attempts", "failed_at_ms")
    return {name: getattr(letter, name) for name in names} | {"tenant": _tenant(letter)}


def _tenant(letter: Letter) -> str | None:
    """Return the tenant by the record's key, TENANT|...; None: the key names none. Nothing else of a key is shown."""
    from attributary.schemas.limits import is_tenant

    name, bar, _ = (letter.key or b"").decode("utf-8", "replace").partition("|")
    return name if bar and is_tenant(name) else None


def _letters(topic: str | None, group: str | None, stage: str | None, text: str | None, since: str) -> Iterator[Letter]:
    from attributary.consumers.runtime.redrive import matching
    from attributary.schemas.topics import PREFIX, catalogue, dead_letter_topic

    topics = [
        dead_letter_topic(each.name, reader)
        for each in catalogue()
        for reader in each.groups
        if topic in (None, each.name, each.name.removeprefix(PREFIX))
        and group in (None, reader, reader.removeprefix(PREFIX))
    ]
    if not topics:
        raise typer.BadParameter("no such topic, or the group does not read it", param_hint="--topic, --group")
    return matching(_read(topics, since), stage=stage, text=text)


def _read(topics: list[str], since: str) -> list[Letter]:
    from attributary.cli.outcome import exit_codes, kafka_settings
    from attributary.cli.times import log_time
    from attributary.consumers.runtime.redrive import read_letters

    since_ms = log_time(since, "--since")
    with exit_codes():
        return read_letters(kafka_settings(), topics, since_ms)


def _fields(letter: Letter) -> str:
    import json

    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.settings import load
    from attributary.schemas.codec import DecodeError
    from attributary.schemas.topics import catalogue

    name = next((topic.record for topic in catalogue() if topic.name == letter.topic), None)
    if name is None:
        return "the record's topic is not in the catalogue"
    try:
        fields = make_codec(load(RegistrySettings)).decode(name, letter.value)
    except DecodeError as error:
        return f"cannot be decoded: {error}"
    return json.dumps(fields, ensure_ascii=True, indent=2)


def _dump(value: bytes, most: int = 1_024) -> str:
    lines = []
    for start in range(0, min(len(value), most), 16):
        part = value[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"  {start:06x}  {part.hex(' '):<47}  {text}")
    if len(value) > most:
        lines.append(f"  ... {len(value) - most} bytes more")
    return "\n".join(lines)


def _time(milliseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="seconds")
