"""From command records to the conversions to look at again: pure.

Commands are level-triggered: of several for one conversion in a batch only the highest version counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.schemas.codec import Codec, DecodeError


@dataclass(slots=True)
class Commands:
    """The distinct conversions of a batch, with version and publishing time (microseconds UTC) of their command.

    ``places`` holds where in the batch each was named first; the order of both is that of the batch.
    ``newest_stitched_us`` is when the newest event behind a command of the stitcher was published; None: there is none.
    """

    wanted: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    repeated: int = 0
    newest_stitched_us: int | None = None


def decode_commands(codec: Codec, records: Sequence[Record]) -> Commands:
    """Decode a batch of commands."""
    out = Commands()
    for place, record in enumerate(records):
        try:
            fields = codec.decode("command", record.value)
        except DecodeError as error:
            out.dead_letters.append(DeadLetter(record, "decode", None, str(error)))
            continue
        key = (fields["tenant_id"], fields["conversion_id"])
        if "\0" in key[0] or "\0" in key[1]:  # Postgres is asked for both
            reason = "command: conversion_id: must not hold a NUL character"
            out.dead_letters.append(DeadLetter(record, "validate", "conversion_id", reason))
            continue
        command = (fields["version"], fields["event_published_at"])
        if fields["issued_by"] == "stitcher":
            out.newest_stitched_us = max(command[1], out.newest_stitched_us or command[1])
        if key in out.wanted:
            out.repeated += 1
            command = max(command, out.wanted[key])
        else:
            out.places[key] = place
        out.wanted[key] = command
    return out
