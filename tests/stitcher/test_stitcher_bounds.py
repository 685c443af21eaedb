"""One person with many conversions and late touchpoints: what is read grows with their sum, and batches are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.stitcher import stage as stitching
from attributary.consumers.stitcher.stitch import Limits
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.stitch import StitchTransaction
from tests.factories.samples import records, sale, touch
from tests.pipeline_harness import InProcess, handle_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.runtime.records import Outcome, Record

pytestmark = pytest.mark.postgres


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as found:
        yield found


def commands_of(outcome: Outcome) -> set[str]:
    return {(message.key or b"").decode() for message in outcome.messages}


def test_what_is_read_grows_with_conversions_plus_touchpoints_and_not_with_their_product(
    stages: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million pairs once were a million rows of a statement, 712 MB."""
    rows: list[int] = []
    for name in ("people_touched", "conversions_touched"):
        original = getattr(StitchTransaction, name)

        def counted(self: Any, *args: Any, original: Any = original) -> Any:
            found = original(self, *args)
            rows.append(len(found))
            return found

        monkeypatch.setattr(StitchTransaction, name, counted)
    stages.stitch(*(sale(f"c{n}", 5 + n / 1_000) for n in range(1_000)))
    stages.stitch(sale("q", 5, who="a:q", tenant_id="quiet"))
    late = [touch(f"t{n}", 1 + n / 1_000) for n in range(1_000)]
    rows.clear()
    outcome = stages.stitcher.handle(records([*late, touch("t", 1, who="a:q", tenant_id="quiet")], first=5_000))
    assert rows == [2, 1_001]
    assert commands_of(outcome) == {"quiet|q", *(f"acme|c{n}" for n in range(1_000))}


def test_a_batch_that_costs_too_much_is_stitched_in_parts_with_the_same_end(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.stitch(*(sale(f"c{n}", 5) for n in range(4)), sale("q", 5, who="a:q", tenant_id="quiet"))
    batch = records(
        [*(touch(f"t{n}", 1 + n) for n in range(8)), touch("t", 1, who="a:q", tenant_id="quiet")], first=100
    )
    for limits in (Limits(pairs=12), Limits(conversions=3)):
        monkeypatch.setattr(stitching.StitcherStage, "_limits", limits)
        taken = stages.stitcher.handle(batch[:8]).taken
        assert taken is not None
        assert 1 <= taken <= 2
        batch = [*batch[taken:8], *batch[8:]] if limits.pairs == 12 else batch
    read(stages, batch)
    counts = {result["conversion_id"]: result["touchpoint_count"] for result in stages.answer()}
    assert counts == {"c0": 5, "c1": 5, "c2": 5, "c3": 5, "q": 1}
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone() == (9,)


def read(stages: InProcess, batch: list[Record]) -> None:
    messages = handle_all(stages.stitcher, batch)
    newest = {message.key: message for message in messages}
    stages.commands = [stages._read(message, "commands") for message in newest.values()]


def test_a_batch_of_very_many_bytes_is_cut(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = records([touch(f"t{n}", n) for n in range(5)])
    monkeypatch.setattr(stitching, "_MAX_BYTES", 2 * len(batch[0].value or b"") + 1)
    assert stages.stitcher.handle(batch).taken == 2
    monkeypatch.setattr(stitching, "_MAX_BYTES", 1)
    assert stages.stitcher.handle(batch[2:]).taken == 1
