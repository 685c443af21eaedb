"""The spool on disk: what is acknowledged is there after a crash, damage costs its own record, full means full."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers import MemoryTransport
from attributary.producers.collector import spool as spool_module
from attributary.producers.collector.bridge import LogBridge
from attributary.producers.collector.drain import Drain
from attributary.producers.collector.intake import SpoolUnavailable
from attributary.producers.collector.spool import QUARANTINE, DiskSpool
from attributary.producers.collector.spool_file import MAGIC, Damage, frame, read_segment
from attributary.producers.transport import Message, OnDone, TooLarge


def message(text: str) -> Message:
    return Message("attribution.touchpoints.v1", b"acme|a1", text.encode(), [("ce_id", text.encode()), ("x", None)])


def pairs(*names: str) -> list[tuple[str, Message]]:
    return [(name, message(name)) for name in names]


def segment(path: Path, *names: str) -> bytes:
    data = MAGIC + b"".join(frame(name, message(name), 1.0) for name in names)
    path.write_bytes(data)
    return data


def read(path: Path) -> tuple[list[str], Damage]:
    damage = Damage()
    return [each.event_id for each in read_segment(path, damage)], damage


def segments(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.spool"))


def on_disk(folder: Path) -> list[str]:
    return [name for path in segments(folder) for name in read(path)[0]]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(work(), 180)

    return asyncio.run(main())


def test_what_is_appended_is_on_disk_and_read_back_whole(tmp_path: Path) -> None:
    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        await asyncio.gather(*(spool.append(pairs(f"a{number}", f"b{number}")) for number in range(50)))
        assert sorted(on_disk(tmp_path)) == sorted(f"{letter}{number}" for letter in "ab" for number in range(50))
        [path] = segments(tmp_path)
        assert next(iter(read_segment(path, Damage()))).message == message("a0")
        assert path.stat().st_mode & 0o077 == 0
        assert spool.size == path.stat().st_size
        await asyncio.to_thread(spool.close)

    run(work)


def test_a_segment_that_is_being_opened_is_not_taken_for_one_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain would remove the empty file, and the records written to it next would be gone though acknowledged."""
    seen: list[tuple[int, list[Path]]] = []

    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        original = spool_module._sync_folder

        def looked_at(folder: Path) -> None:
            seen.append((len(segments(tmp_path)), spool.closed_segments()))
            original(folder)

        monkeypatch.setattr(spool_module, "_sync_folder", looked_at)
        spool.start()
        await spool.append(pairs("a"))
        await asyncio.to_thread(spool.close)

    run(work)
    assert seen == [(1, [])]
    assert on_disk(tmp_path) == ["a"]


def test_a_full_spool_refuses_and_takes_again_after_a_drain(tmp_path: Path) -> None:
    async def work() -> None:
        spool = DiskSpool(tmp_path, 600)
        spool.start()
        taken = 0
        with suppress(SpoolUnavailable):
            while taken < 1_000:
                await spool.append(pairs(f"r{taken}"))
                taken += 1
        assert taken < 1_000
        assert taken > 1
        assert len(on_disk(tmp_path)) == taken
        log = MemoryTransport()
        await drained(spool, log)
        assert [each.value.decode() for each in log.messages] == [f"r{number}" for number in range(taken)]
        while spool.size:  # noqa: ASYNC110  # a thread counts after it has removed the file
            await asyncio.sleep(0.01)
        await spool.append(pairs("again"))
        await asyncio.to_thread(spool.close)

    run(work)


async def drained(spool: DiskSpool, log: MemoryTransport) -> None:
    """Drain until nothing is left."""
    bridge = LogBridge(log)
    bridge.start()
    task = asyncio.create_task(Drain(spool, bridge, 100_000).run())
    while spool.closed_segments() or spool.rotate():  # noqa: ASYNC110  # files have no event
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bridge.stop(1)


@given(st.integers(0, 200))
@settings(deadline=None)
def test_a_torn_tail_costs_what_was_never_acknowledged(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("spool") / "1.spool"
    data = segment(path, "one", "two", "three")
    sizes = [len(MAGIC), *(len(frame(name, message(name), 1.0)) for name in ("one", "two", "three"))]
    length = max(0, len(data) - cut)
    path.write_bytes(data[:length])
    names, damage = read(path)
    whole = [name for number, name in enumerate(("one", "two", "three"), 1) if sum(sizes[: number + 1]) <= length]
    assert names == whole
    assert damage.corrupt == 0


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(deadline=None)
def test_a_flipped_bit_costs_one_record_and_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("spool") / "1.spool"
    data = bytearray(segment(path, "one", "two", "three"))
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    names, damage = read(path)
    assert len(names) >= 2
    assert [name for name in ("one", "two", "three") if name in names] == names
    assert damage.corrupt + bool(damage.torn_bytes) == 1


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_read_without_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("spool") / "1.spool"
    path.write_bytes(MAGIC + data)
    assert read(path)[0] == []


def test_a_dead_process_is_adopted_and_a_living_one_is_not(tmp_path: Path) -> None:
    async def work() -> None:
        dead, living = DiskSpool(tmp_path, 1 << 20), DiskSpool(tmp_path, 1 << 20)
        for each, name in ((dead, "of the dead"), (living, "of the living")):
            each.start()
            await each.append(pairs(name))
        await asyncio.to_thread(dead.close)  # its lock is free, as after a kill
        heir = DiskSpool(tmp_path, 1 << 20)
        assert heir.adopt() == 1
        assert not dead.own.exists()
        assert [name for path in heir.closed_segments() for name in read(path)[0]] == ["of the dead"]
        assert heir.size == heir.closed_segments()[0].stat().st_size
        assert heir.adopt() == 0
        assert living.own.exists()
        await asyncio.to_thread(living.close)

    run(work)


def test_damage_is_kept_aside_and_the_rest_goes_to_the_log(tmp_path: Path) -> None:
    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        data = bytearray(segment(spool.own / "00000000000000000001-a.spool", "one", "two", "three"))
        data[-3] ^= 1
        (spool.own / "00000000000000000001-a.spool").write_bytes(data)
        log = MemoryTransport()
        await drained(spool, log)
        assert [each.value for each in log.messages] == [b"one", b"two"]
        assert [path.read_bytes() for path in (tmp_path / QUARANTINE).iterdir()] == [bytes(data)]
        await asyncio.to_thread(spool.close)

    run(work)


def test_a_record_that_the_log_never_takes_does_not_hold_up_the_others(tmp_path: Path) -> None:
    class Small(MemoryTransport):
        def send(self, message: Message, on_done: OnDone) -> None:
            if message.value == b"two":
                raise TooLarge("too large")
            super().send(message, on_done)

    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        await spool.append(pairs("one", "two", "three"))
        log = Small()
        await drained(spool, log)
        assert [each.value for each in log.messages] == [b"one", b"three"]
        assert [name for path in (tmp_path / QUARANTINE).iterdir() for name in read(path)[0]] == ["one", "two", "three"]
        await asyncio.to_thread(spool.close)

    run(work)


def test_a_drain_goes_on_after_failures_and_a_full_queue_and_keeps_the_order(tmp_path: Path) -> None:
    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        for number in range(7):
            await spool.append(pairs(f"r{number}"))
        log = MemoryTransport(capacity=3)
        log.fail_next("broker away", times=2)
        await drained(spool, log)
        assert sorted({each.value for each in log.messages}) == [f"r{number}".encode() for number in range(7)]
        await asyncio.to_thread(spool.close)

    run(work)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_an_error_to_the_caller_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    fired = 0
    real = getattr(os, call)

    def failing(*arguments: Any) -> Any:
        nonlocal fired
        if len(arguments) == 2 and len(arguments[1]) <= len(MAGIC):
            return real(*arguments)
        fired += 1
        if call == "write":
            real(arguments[0], arguments[1][:5])  # a part gets through
        raise OSError(code, os.strerror(code))

    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        await spool.append(pairs("before"))
        monkeypatch.setattr(os, call, failing)
        with pytest.raises(SpoolUnavailable):
            await spool.append(pairs("lost"))
        assert fired >= 1
        could_take = spool.can_take
        assert not could_take
        monkeypatch.setattr(os, call, real)
        await spool.append(pairs("after"))
        assert spool.can_take
        assert on_disk(tmp_path) == ["before", "after"]
        await asyncio.to_thread(spool.close)

    run(work)


def test_a_closed_spool_takes_nothing_and_an_empty_one_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        spool = DiskSpool(tmp_path, 1 << 20)
        spool.start()
        await asyncio.to_thread(spool.close)
        with pytest.raises(SpoolUnavailable):
            await spool.append(pairs("late"))

    run(work)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
