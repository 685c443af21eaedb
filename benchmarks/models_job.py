"""Measures the project's own models over journeys that `models_work` keeps: time, memory, and what came out.

Times are the least of several runs: what is left is the work itself, not what else the machine did meanwhile. The two
sides of a ratio take turns.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attributary.attribution_core.models.markov import (
    RemovalEffects,
    first_order_chain,
    first_order_removal,
    removal_effects,
    shares,
)
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.poisson_credit import PoissonSettings, Rates
from attributary.attribution_core.statistics.chain_counts import count_chain
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.attribution_core.statistics.ngram_states import NgramSteps
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import encode_paths
from benchmarks.models_work import Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from attributary.attribution_core.domain.journeys import Codes, Floats, Ints, JourneyBatch, Outcomes

_SECONDS = 1.0  # of repetitions, per figure
_LEAST_RUNS, _MOST_SECONDS = 3, 4.0  # one run alone may have met other work; three, unless they take this long
_MOST_RUNS = 50
_BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024
_AGREEMENT = 1e-12


class DisagreementError(ArithmeticError):
    """Two ways to the same numbers gave different ones."""


def quickest(*runs: Callable[[], object]) -> list[float]:
    """Let the runs take turns until their time is up; returns the least seconds of each."""
    found = [float("inf")] * len(runs)
    started = time.perf_counter()
    for turn in range(_MOST_RUNS):
        spent = (time.perf_counter() - started) / len(runs)
        if turn and spent > (_SECONDS if turn >= _LEAST_RUNS else _MOST_SECONDS):
            break
        for number, run in enumerate(runs):
            begun = time.perf_counter()
            run()
            found[number] = min(found[number], time.perf_counter() - begun)
    return found


def growth(run: Callable[[], object]) -> int:
    """Bytes by which a run raises the highest resident memory of a process that holds nothing but the input.

    A forked child starts with the present memory as its highest. That of this process itself would not do: it may have
    inherited a higher one from the process that started it.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_growth, args=(sender, run))
    child.start()
    sender.close()
    grown: int = receiver.recv()
    child.join()
    return grown


def _send_growth(sender: Connection, run: Callable[[], object]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    sender.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * _BYTES_PER_MAXRSS)


def first_order(channels: Codes, offsets: Ints, outcomes: Outcomes, size: int) -> RemovalEffects:
    """Removal effects of all channels of the chain of first order, from the encoded stream."""
    counts = count_chain(channels, offsets, outcomes, size)
    chain = first_order_chain(counts.steps, counts.opens, counts.conversions, counts.conversions + counts.nulls)
    return first_order_removal(chain)


def second_order(batch: JourneyBatch, outcomes: Outcomes) -> RemovalEffects:
    """The same of the chain of second order."""
    rewards = outcomes.conversions[:, None].astype(np.float64)
    exits = (outcomes.conversions + outcomes.nulls).astype(np.float64)
    return removal_effects(NgramSteps.of(batch, 2).chain(rewards, exits))


def measure_removal(folder: Path) -> dict[str, Any]:
    """Measure removal effects over one set of journeys; returns seconds, bytes, and shares by channel."""
    work = Work.read(folder)
    outcomes, size = work.outcomes, work.size

    def encoded() -> RemovalEffects:
        return first_order(work.channels, work.offsets, outcomes, size)

    grown = growth(encoded)  # before anything else has left its memory behind
    texts = (folder / "paths.txt").read_text(encoding="utf-8").splitlines()
    batch = work.batch()
    second_grown = growth(lambda: second_order(batch.slice(0, len(batch)), outcomes))

    def from_strings() -> RemovalEffects:
        parsed = encode_paths(texts)
        return first_order(parsed.channels, parsed.offsets, outcomes, len(parsed.index))

    strings_grown = growth(from_strings)
    count_seconds, encoded_seconds = quickest(lambda: np.bincount(work.channels, minlength=size), encoded)
    (strings_seconds,) = quickest(from_strings)
    names = encode_paths(texts).index.names
    found = by_name(work.index.names, encoded().effects)
    parsed_effects = by_name(names, from_strings().effects)
    if max(abs(found[name] - parsed_effects[name]) for name in names) > _AGREEMENT:
        raise DisagreementError("removal effects from strings are not those of the encoded stream")
    done = {
        "touches": work.channels.size,
        "grown_bytes": grown,
        "strings_grown_bytes": strings_grown,
        "second_grown_bytes": second_grown,
        "bincount_seconds": count_seconds,
        "encoded_seconds": encoded_seconds,
        "strings_seconds": strings_seconds,
        "shares": by_name(work.index.names, shares(encoded().effects)),
    }
    return done | measure_second(work, batch, texts)


def measure_second(work: Work, batch: JourneyBatch, texts: list[str]) -> dict[str, Any]:
    """Measure the chain of second order."""
    outcomes = work.outcomes
    # A slice shares the arrays but keeps nothing that an earlier run has worked out.
    (encoded,) = quickest(lambda: second_order(batch.slice(0, len(batch)), outcomes))
    (strings,) = quickest(lambda: second_order(encode_paths(texts), outcomes))
    effects = second_order(batch, outcomes).effects[0]
    return {
        "second_seconds": encoded,
        "second_strings_seconds": strings,
        "second_shares": by_name(work.index.names, shares(effects)),
    }


def measure_pipeline(folder: Path, batches: list[int]) -> dict[str, Any]:
    """Let all models of the pipeline, trained ones with a version, credit the journeys; returns seconds by batch."""
    work = Work.read(folder)
    batch = work.batch()
    document = JourneyState.fit(batch, work.outcomes).to_document()
    states = {"markov": document, "poisson": drawn_rates(work).to_document()}
    models = model_set(states={name: TrainedState("bench", found, {}) for name, found in states.items()})

    def credit(size: int) -> None:
        for low in range(0, len(batch), size):
            models.attribute(batch.slice(low, low + size))

    seconds = quickest(*(lambda size=size: credit(size) for size in batches))
    return {"models": len(models.models), "seconds": dict(zip(map(str, batches), seconds, strict=True))}


def drawn_rates(work: Work) -> Rates:
    """Rates of a time-aware model: which ones does not matter to how long it takes to credit with them."""
    settings, random = PoissonSettings(), np.random.default_rng(work.size)
    shape = (work.size, len(AGE_BOUNDS))
    beta = random.exponential(0.5, shape)
    draws = np.maximum(beta + random.normal(0, 0.1, (settings.draws, *shape)), 0.0)
    return Rates(work.index, AGE_BOUNDS, beta, draws, np.full(work.size, settings.minimum_conversions))


def by_name(names: tuple[str, ...], numbers: Floats) -> dict[str, float]:
    """Numbers by channel."""
    return dict(zip(names, numbers.tolist(), strict=True))


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    place = Path(wanted["folder"])
    result = measure_pipeline(place, wanted["batches"]) if "batches" in wanted else measure_removal(place)
    sys.stdout.write(json.dumps(result) + "\n")
