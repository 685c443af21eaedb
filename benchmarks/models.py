"""Sets the figures of the models up: journeys of every size, ours in one process, the peers in environments of theirs.

Needs neither a broker nor a database. See `models_work` for the journeys, `models_job` and `models_peer_job` for what
is measured, `models_truth` for the scoreboard. Every figure with an aim says whether it was met. Peers together get
`_PEERS_SECONDS`, so that the whole takes less than ten minutes; what is left out for that is named.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.environment import PeerUnavailableError, install
from benchmarks.environment_setup import JobError, JobTimeoutError, run_job
from benchmarks.figures import Figure, Report, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JOURNEYS = (10_000, 100_000, 1_000_000)
CHANNELS = (10, 50, 200)
SIZES = tuple((journeys, channels) for journeys in JOURNEYS for channels in CHANNELS)
PIPELINE_JOURNEYS, PIPELINE_CHANNELS = 100_000, 50
PIPELINE_BATCHES = (1_000, 100_000)
_LEAST_JOURNEYS = 10
_LEAST_TRUTH = 0.1  # of the scoreboard's 14,000 journeys: with fewer, rare channels have no conversion at all
_SHARES = {1: "shares", 2: "second_shares"}  # by order, in what `models_job` says
_PEER_JOB = str(Path(__file__).with_name("models_peer_job.py"))
_PEERS_SECONDS = 420.0
_MILLION = 1_000_000
_CREDITED_A_SECOND = 50_000
_MEMORY_MB = 300
_LINEAR = 1.25  # larger tables may leave a cache
# One thread for each side. The peers use one; and two threads of a BLAS that wait for each other measure what else the
# machine does.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Comparison:
    """A figure of ours that is set against a peer.

    Attributes:
        name: of the figure.
        seconds: its key in what `models_job` says.
        aim: how many times the peer's rate ours should be.
        at: from how many journeys on it should.
    """

    name: str
    seconds: str
    aim: float | None = None
    at: int = 0


@dataclass(frozen=True)
class Peer:
    """Another package for the same question.

    Attributes:
        name: for people.
        short: for the names of figures.
        job: its name in `models_peer_job`.
        packages: what pip installs.
        imports: what must be importable.
        venv: folder of its environment.
        figures: by the order of its chains, our figures that are set against it.
        seconds: it is killed after this time, and not asked for as many journeys again.
        bytes_per_journey: of memory that it needs, roughly; it is not asked for more than half of what the machine has.
    """

    name: str
    short: str
    job: str
    packages: tuple[str, ...]
    imports: str
    venv: str
    figures: Mapping[int, Sequence[Comparison]]
    seconds: float
    bytes_per_journey: int


PEERS = (
    Peer(
        name="ChannelAttribution",
        short="CA",
        job="channel_attribution",
        # it imports matplotlib without saying that it needs it
        packages=("ChannelAttribution==2.2.5", "matplotlib"),
        imports="ChannelAttribution",
        venv="models-venv",
        figures={
            1: (
                Comparison("encoded", "encoded_seconds", 100, at=_MILLION),
                Comparison("strings", "strings_seconds", 1),
            ),
            2: (Comparison("order 2", "second_seconds", 3), Comparison("order 2 strings", "second_strings_seconds")),
        },
        seconds=120,
        bytes_per_journey=500,
    ),
    Peer(
        name="marketing-attr.-models",
        short="MAM",
        job="marketing_attribution_models",
        packages=("marketing-attribution-models==2.1.1",),
        imports="mam",
        venv="models-venv-mam",
        figures={1: (Comparison("strings", "strings_seconds"),)},
        seconds=60,
        bytes_per_journey=5_000,
    ),
)


@dataclass
class Rival:
    """A peer that is installed here, and what it is not asked for any more.

    Attributes:
        peer: what it is.
        python: its interpreter.
        most: journeys that the memory allows.
        late: order, journeys and channels for which it took too long.
    """

    peer: Peer
    python: str
    most: float
    late: list[tuple[int, int, int]]

    def refusal(self, order: int, case: Case, seconds_left: float) -> str | None:
        """Why it is not asked: None when it is."""
        if case.journeys >= self.most:
            return "left out, it needs too much memory"
        if any(late == order and case.journeys >= n and case.channels >= k for late, n, k in self.late):
            return "left out, fewer took too long"
        return "left out, the time for peers is over" if seconds_left <= 1 else None


@dataclass(frozen=True)
class Case:
    """Journeys in a folder and what ours did with them."""

    folder: Path
    journeys: int
    channels: int
    done: dict[str, Any]

    @property
    def name(self) -> str:
        """Number of journeys and of channels."""
        return f"{self.journeys:,}x{self.channels}"


def measure_models(
    folder: Path, report: Report, *, sizes: Sequence[tuple[int, int]] = SIZES, peers: Sequence[Peer] = PEERS
) -> None:
    """Add all figures of the models to the report.

    Args:
        folder: for environments that are kept, and for journeys that are not.
        report: gets the figures; its scale multiplies the numbers of journeys.
        sizes: numbers of journeys at scale 1, and of channels.
        peers: what to compare with.
    """
    begun = time.monotonic()
    rivals = list(_installed(folder, report, peers))
    done_by_channels: dict[int, list[dict[str, Any]]] = {}
    peer_seconds = 0.0
    for number, (journeys, channels) in enumerate(sizes, start=1):
        drawn = max(round(journeys * report.scale), _LEAST_JOURNEYS)
        name = f"{drawn:,}x{channels}"
        say(f"-- {name}, {number} of {len(sizes)}, after {time.monotonic() - begun:.0f} s")
        with tempfile.TemporaryDirectory(prefix="journeys-", dir=folder) as place:
            try:
                run_job("models_work", {"journeys": drawn, "channels": channels, "folder": place})
                done = run_job("models_job", {"folder": place}, environment=_ONE_THREAD)
            except JobError as error:
                report.miss(name, str(error))
                continue
            case = Case(Path(place), drawn, channels, done)
            _add_own(report, case)
            done_by_channels.setdefault(channels, []).append(done)
            asked = time.monotonic()
            for rival in rivals:
                _add_rival(report, rival, case, _PEERS_SECONDS - peer_seconds)
            peer_seconds += time.monotonic() - asked
    _add_growth(report, done_by_channels)
    _add_pipeline(folder, report)
    _add_truth(report)
    say(f"-- models done after {time.monotonic() - begun:.0f} s")


def _installed(folder: Path, report: Report, peers: Sequence[Peer]) -> Iterator[Rival]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for peer in peers:
        try:
            python = install(folder / peer.venv, peer.packages, peer.imports)
        except PeerUnavailableError as error:
            report.miss(f"peer: {peer.name}", f"{error}; every figure against it is missing from this run")
            continue
        yield Rival(peer, str(python), memory / 2 / peer.bytes_per_journey, [])


def _add_own(report: Report, case: Case) -> None:
    """Add what needs no peer. Aims of time are for a million journeys: fewer take less than the solving."""
    done, name = case.done, case.name
    detail = {"journeys": case.journeys} | {key: value for key, value in done.items() if not key.endswith("shares")}
    ratio = done["encoded_seconds"] / done["bincount_seconds"]
    aim, met = ("<= 2", ratio <= 2) if case.journeys >= _MILLION else ("", None)
    seconds = done["encoded_seconds"]
    report.add(Figure(f"{name} encoded", seconds * 1e3, "ms", "one bincount", ratio, aim, detail, met))
    for title, key in (("", "grown_bytes"), (" strings", "strings_grown_bytes"), (" order 2", "second_grown_bytes")):
        grown = done[key] / 1e6
        met = grown < _MEMORY_MB
        aim = f"< {_MEMORY_MB} MB"
        report.add(Figure(f"{name} memory{title}", grown, "MB", "beyond the input", None, aim, {}, met))


def _add_rival(report: Report, rival: Rival, case: Case, seconds: float) -> None:
    """Add our rates over theirs, on the same paths."""
    peer, done = rival.peer, case.done
    until = time.monotonic() + seconds
    for order, figures in peer.figures.items():
        left = until - time.monotonic()
        refusal = rival.refusal(order, case, left)
        if refusal is not None:
            say(f"{case.name:<34} {peer.name}: order {order} {refusal}")
            continue
        arguments = {"folder": str(case.folder), "peer": peer.job, "order": order}
        limit = min(peer.seconds, left)
        try:
            theirs = run_job(_PEER_JOB, arguments, python=rival.python, seconds=limit, environment=_ONE_THREAD)
        except JobTimeoutError:
            say(f"{case.name:<34} {peer.name}: order {order} not done within {limit:.0f} s, nor will more be")
            rival.late.append((order, case.journeys, case.channels))
            continue
        except JobError as error:
            report.miss(f"{case.name} order {order} / {peer.short}", str(error))
            continue
        detail = {
            "peer_seconds": theirs["seconds"],
            "peer_runs": theirs["runs"],
            "peer_grown_bytes": theirs["grown_bytes"],
            "distance_of_shares": _distance(done[_SHARES[order]], theirs["shares"]),
        }
        for figure in figures:
            own = done[figure.seconds]
            title, ratio = f"{case.name} {figure.name} / {peer.short}", theirs["seconds"] / own
            asked = figure.aim is not None and case.journeys >= figure.at
            aim, met = (f">= {figure.aim:g}", ratio >= figure.aim) if figure.aim is not None and asked else ("", None)
            report.add(Figure(title, case.journeys / own, "journeys/s", peer.name, ratio, aim, detail, met))
        _add_memory(report, peer, case, order, theirs["grown_bytes"])


def _add_memory(report: Report, peer: Peer, case: Case, order: int, theirs: int | None) -> None:
    """Add our memory beside theirs, both from strings in memory for the first order: the ratio is theirs over ours."""
    ours = case.done["strings_grown_bytes" if order == 1 else "second_grown_bytes"]
    if theirs is None or ours <= 0:
        return
    title = f"{case.name} memory {'strings' if order == 1 else 'order 2'} / {peer.short}"
    report.add(Figure(title, ours / 1e6, "MB", f"{peer.short} {theirs / 1e6:,.0f} MB", theirs / ours))


def _add_growth(report: Report, done_by_channels: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Add how the cost of a touch changes with ten times the journeys: not at all where cost is linear in touches.

    It is taken in bincounts of the same stream, which ran in turns with it, so that other work on the machine at one of
    the two times does not count.
    """
    for channels, done in done_by_channels.items():
        if len(done) > 1:
            fewer, most = (each["encoded_seconds"] / each["bincount_seconds"] for each in done[-2:])
            nanoseconds = done[-1]["encoded_seconds"] / done[-1]["touches"] * 1e9
            title, ratio = f"cost of a touch, {channels} channels", most / fewer
            met = ratio <= _LINEAR if report.scale >= 1 else None
            report.add(Figure(title, nanoseconds, "ns", "a tenth of journeys", ratio, f"<= {_LINEAR}", {}, met))


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Half the sum of the differences: 0 for the same shares, 1 for shares of nothing in common."""
    return sum(abs(one.get(name, 0) - other.get(name, 0)) for name in one | other) / 2


def _add_pipeline(folder: Path, report: Report) -> None:
    """Add the rate at which all models of the pipeline together credit journeys."""
    journeys = max(round(PIPELINE_JOURNEYS * report.scale), _LEAST_JOURNEYS)
    with tempfile.TemporaryDirectory(prefix="journeys-", dir=folder) as place:
        try:
            run_job("models_work", {"journeys": journeys, "channels": PIPELINE_CHANNELS, "folder": place})
            arguments = {"folder": place, "batches": PIPELINE_BATCHES}
            done = run_job("models_job", arguments, environment=_ONE_THREAD)
        except JobError as error:
            report.miss("all models", str(error))
            return
    for batch, seconds in done["seconds"].items():
        name = f"all models, batches of {int(batch):,}"
        rate = journeys / seconds
        met = rate >= _CREDITED_A_SECOND
        aim = f">= {_CREDITED_A_SECOND:,}/s"
        report.add(Figure(name, rate, "journeys/s", "apart from I/O", None, aim, done, met))


def _add_truth(report: Report) -> None:
    """Add the scoreboard: how far every model is from what the simulator knows to be true."""
    try:
        scores = run_job("models_truth", {"scale": max(report.scale, _LEAST_TRUTH)})
    except JobError as error:
        report.miss("scoreboard", str(error))
        return
    say("-- distance of shares from the truth: where most, where little and where all happens anyway; 0 is right")
    for model, (most, little, everything) in sorted(scores.items(), key=lambda item: item[1]):
        others = f"{little:.2f}, {everything:.2f} elsewhere"
        detail = {"most": most, "little": little, "all": everything}
        name = f"truth: {model.replace(', baseline named', ' + baseline')}"
        report.add(Figure(name, most, "distance", others, None, "", detail))
