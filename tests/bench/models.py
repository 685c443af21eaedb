"""Sets the figures of the models up: journeys of every size, ours in one process, the peers in environments of theirs.

Needs neither a broker nor a database. See `models_work` for the journeys, `models_job` and `models_peer_job` for what
is measured.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.environment import PeerUnavailableError, install
from tests.bench.figures import Figure, Report, say
from tests.bench.ground import JobError, JobTimeoutError, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JOURNEYS = (10_000, 100_000, 1_000_000)
CHANNELS = (10, 50, 200)
SIZES = tuple((journeys, channels) for journeys in JOURNEYS for channels in CHANNELS)
SECOND_ORDER_CHANNELS = 50
PIPELINE_JOURNEYS, PIPELINE_CHANNELS = 100_000, 50
PIPELINE_BATCHES = (1_000, 100_000)
_LEAST_JOURNEYS = 10
_SHARES = {1: "shares", 2: "second_shares"}  # by order, in what `models_job` says
_PEER_JOB = str(Path(__file__).with_name("models_peer_job.py"))


@dataclass(frozen=True)
class Comparison:
    """A figure of ours that is set against a peer.

    Attributes:
        name: of the figure.
        seconds: its key in what `models_job` says.
        aim: how many times the peer's rate ours should be.
    """

    name: str
    seconds: str
    aim: str = ""


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
            1: (Comparison("encoded", "encoded_seconds", ">= 100"), Comparison("strings", "strings_seconds", ">= 1")),
            2: (
                Comparison("order 2", "second_seconds", ">= 3"),
                Comparison("order 2 strings", "second_strings_seconds"),
            ),
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
    """A peer that is installed here, and the number of journeys that it is not asked for any more."""

    peer: Peer
    python: str
    too_many: float


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
    rivals = list(_installed(folder, report, peers))
    most = max(journeys for journeys, _ in sizes)
    for journeys, channels in sizes:
        drawn = max(round(journeys * report.scale), _LEAST_JOURNEYS)
        name = f"{drawn:,}x{channels}"
        with tempfile.TemporaryDirectory(prefix="journeys-", dir=folder) as place:
            try:
                run_job("models_work", {"journeys": drawn, "channels": channels, "folder": place})
                done = run_job("models_job", {"folder": place, "second": channels == SECOND_ORDER_CHANNELS})
            except JobError as error:
                report.miss(name, str(error))
                continue
            case = Case(Path(place), drawn, done)
            _add_own(report, name, case, largest=journeys == most)
            for rival in rivals:
                _add_rival(report, name, rival, case)
    _add_pipeline(folder, report)


@dataclass(frozen=True)
class Case:
    """Journeys in a folder and what ours did with them."""

    folder: Path
    journeys: int
    done: dict[str, Any]


def _installed(folder: Path, report: Report, peers: Sequence[Peer]) -> Iterator[Rival]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for peer in peers:
        try:
            python = install(folder / peer.venv, peer.packages, peer.imports)
        except PeerUnavailableError as error:
            report.miss(f"peer: {peer.name}", str(error))
            continue
        yield Rival(peer, str(python), memory / 2 / peer.bytes_per_journey)


def _add_own(report: Report, name: str, case: Case, *, largest: bool) -> None:
    """Add what needs no peer. Its aims are for the most journeys: few of them take less than the solving."""
    done = case.done
    detail = {"journeys": case.journeys} | {key: value for key, value in done.items() if not key.endswith("shares")}
    ratio = done["encoded_seconds"] / done["bincount_seconds"]
    aim = "<= 2" if largest else ""
    report.add(Figure(f"{name} encoded", done["encoded_seconds"] * 1e3, "ms", "one bincount", ratio, aim, detail))
    if largest:
        report.add(Figure(f"{name} memory", done["grown_bytes"] / 1e6, "MB", "beyond the input", None, "< 300 MB"))


def _add_rival(report: Report, name: str, rival: Rival, case: Case) -> None:
    """Add our rates over theirs, on the same paths."""
    peer, done = rival.peer, case.done
    for order, figures in peer.figures.items():
        if _SHARES[order] not in done:
            continue
        if case.journeys >= rival.too_many:
            say(f"{name:<34} {peer.name}: order {order} left out, it needs too much time or memory")
            continue
        arguments = {"folder": str(case.folder), "peer": peer.job, "order": order}
        try:
            theirs = run_job(_PEER_JOB, arguments, python=rival.python, seconds=peer.seconds)
        except JobTimeoutError:
            say(f"{name:<34} {peer.name}: order {order} not done within {peer.seconds:.0f} s, nor will more be")
            rival.too_many = case.journeys
            continue
        except JobError as error:
            report.miss(f"{name} order {order} / {peer.short}", str(error))
            continue
        detail = {
            "peer_seconds": theirs["seconds"],
            "peer_runs": theirs["runs"],
            "distance_of_shares": _distance(done[_SHARES[order]], theirs["shares"]),
        }
        for figure in figures:
            own = done[figure.seconds]
            title, ratio = f"{name} {figure.name} / {peer.short}", theirs["seconds"] / own
            report.add(Figure(title, case.journeys / own, "journeys/s", peer.name, ratio, figure.aim, detail))


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Half the sum of the differences: 0 for the same shares, 1 for shares of nothing in common."""
    return sum(abs(one.get(name, 0) - other.get(name, 0)) for name in one | other) / 2


def _add_pipeline(folder: Path, report: Report) -> None:
    """Add the rate at which all models of the pipeline together credit journeys."""
    journeys = max(round(PIPELINE_JOURNEYS * report.scale), _LEAST_JOURNEYS)
    with tempfile.TemporaryDirectory(prefix="journeys-", dir=folder) as place:
        try:
            run_job("models_work", {"journeys": journeys, "channels": PIPELINE_CHANNELS, "folder": place})
            done = run_job("models_job", {"folder": place, "batches": PIPELINE_BATCHES})
        except JobError as error:
            report.miss("all models", str(error))
            return
    for batch, seconds in done["seconds"].items():
        name = f"all models, batches of {int(batch):,}"
        report.add(Figure(name, journeys / seconds, "journeys/s", "", None, ">= 50,000/s", done))
