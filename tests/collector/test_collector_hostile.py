"""Abuse of the public listener: bodies, headers and connections as an attacker sends them. Never a 500, never a hang.

Each test ends with a request that is served: the abuse cost its own connection only.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.producers import MemoryTransport
from attributary.producers.collector import metrics
from attributary.producers.collector.answers import Refusal
from attributary.producers.collector.body import inflate
from attributary.producers.collector.payloads import Rejected, read_conversion, read_touchpoint, split
from attributary.producers.collector.spool_file import Damage, read_segment
from attributary.producers.transport import Message, OnDone
from tests.fixtures.collector import (
    CONVERSION,
    EVENT,
    RunningCollector,
    now,
    purchase,
    received,
    running_collector,
    touch,
    wait_until,
)
from tests.fixtures.collector_process import segments

LIMIT = 64 << 10


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    folder: Path = tmp_path_factory.mktemp("collector")
    with running_collector(
        folder, max_body=LIMIT, max_body_secret=LIMIT, max_record=8 << 10, max_record_secret=8 << 10, max_records=100,
        header_bytes=8 << 10, headers_max=50, max_connections=60,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def collector(shared: RunningCollector) -> Iterator[RunningCollector]:
    shared.log.messages.clear()
    yield shared
    answer = shared.post(touch(event_id="after"))
    assert answer.status == 200


def head(collector: RunningCollector, *lines: str, path: str = EVENT, method: str = "POST") -> bytes:
    given_lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {collector.keys['sk']}"]
    return "\r\n".join([*given_lines, *lines, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_a_body_above_the_limit_with_an_honest_a_lying_and_no_length(collector: RunningCollector) -> None:
    large = b"x" * (LIMIT + 1)
    assert collector.post(large).status == 413
    lying = collector.raw(head(collector, "Content-Length: 5") + large)
    assert status(lying) == 400
    chunk = b"%x\r\n%b\r\n" % (len(large), large)
    chunked = collector.raw(head(collector, "Transfer-Encoding: chunked", "Connection: close") + chunk + b"0\r\n\r\n")
    assert status(chunked) == 413
    assert status(collector.raw(head(collector, f"Content-Length: {10**40}", "Connection: close"))) in {400, 413}
    assert status(collector.raw(head(collector, "Content-Length: -1", "Connection: close"))) == 400


@cache
def zeros() -> bytes:
    return gzip.compress(b"0" * (50 << 20))


BOMBS: dict[str, Callable[[], bytes]] = {
    "bomb": zeros,
    "nested": lambda: gzip.compress(gzip.compress(b"[" + b" " * (50 << 20) + b"]")),
    "members": lambda: gzip.compress(b"") * 3_000,
    "full members": lambda: gzip.compress(b" " * 60_000) * 10,
    "cut short": lambda: gzip.compress(json.dumps(touch()).encode())[:-9],
    "no end": lambda: zeros()[: len(zeros()) // 2],
    "garbage behind": lambda: gzip.compress(json.dumps(touch()).encode()) + b"garbage",
    "zlib": lambda: zlib.compress(b"{}"),
    "text": lambda: b"{}",
    "empty": bytes,
    "flipped": lambda: gzip.compress(b"{}")[:-5] + b"\x00" * 5,
}


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_bombs_are_refused_without_being_held(collector: RunningCollector, name: str) -> None:
    content = BOMBS[name]()
    tracemalloc.start()
    answer = collector.post(content, headers={"Content-Encoding": "gzip"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status in {400, 413}
    assert peak < 4 << 20
    assert not collector.log.messages


def test_inflating_holds_the_limit_and_a_step_at_most() -> None:
    packed = gzip.compress(b"0" * (200 << 20))
    tracemalloc.start()
    with pytest.raises(Refusal):
        inflate(packed, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000, b'{"a":' * 10_000, b'[{"properties":' + b"[" * 30_000 + b"]" * 30_000 + b"}]",
        b'{"' + b"k" * 60_000 + b'":1}', b"[" + b"{}," * 20_000 + b"{}]", b"[1,2,3", b"nul", b"NaN", b"[Infinity]",
        b'{"a":1e400}', b'{"a":' + b"9" * 50_000 + b"}", b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff\xfe"}', b'{"a":"\\ud800"}', b'{"a":"\\u0000"}', b'{"events":[],"conversions":[]}',
        b'{"events":{}}',
        b"\x00" * 100, b'"text"', b"12", b"[]", b"{}", b"", b" \n", b"[[]]", b"[null]", b"// comment\n{}", b"{'a':1}",
        b'{"a":1,}', b'{"a":01}', b'{"a":1}{"a":2}', b'{"sent_at":"x","events":[{}]}',
        b'{"sent_at":' + b"9" * 400 + b',"events":[{}]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [EVENT, CONVERSION])
def test_bodies_that_are_no_records_are_400_or_413(collector: RunningCollector, body: bytes, path: str) -> None:
    answer = collector.post(body, path=path)
    assert answer.status in {400, 413}
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not collector.log.messages


@pytest.mark.parametrize(
    "fields",
    [
        {"engagement_seconds": 1e308}, {"occurred_at": 10**30}, {"occurred_at": "9999-12-31T23:59:59+00:00"},
        {"occurred_at": "0001-01-01T00:00:00+23:59"}, {"occurred_at": -(10**30)}, {"event_id": "a\0b"},
        {"properties": {"a": "\0"}}, {"properties": {"k" * 300: "x"}}, {"properties": {str(n): "" for n in range(200)}},
        {"anonymous_id": "\ufffe" * 300}, {"user_id": "[object Object]"}, {"landing_url": "http://[" * 100},
        {"consent": {str(n): True for n in range(200)}}, {"landing_url": "x" * 5000, "channel": None},
        {"click_ids": {"gclid": "x" * 5000}}, {"country": "DEU"}, {"type": "x" * 5000}, {"utm_source": "\x7f" * 600},
    ],
)  # fmt: skip
def test_hostile_values_are_taken_or_named(collector: RunningCollector, fields: dict[str, object]) -> None:
    answer = collector.post(touch() | fields)
    assert answer.status in {200, 400}
    if answer.status == 400:
        assert answer.json["rejected"][0]["field"]


def test_of_a_field_that_stands_twice_the_last_counts(collector: RunningCollector) -> None:
    body = json.dumps(touch(event_id="e")).encode().replace(b"{", b'{"tenant_id_x":1,"anonymous_id":"first",', 1)
    assert collector.post(body.replace(b'"tenant_id_x":1,', b"")).status == 200
    assert collector.log.records("touchpoint")[0]["anonymous_id"] == "a1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["X-Large: " + "x" * 1_000_000], 431),
        ([f"X-{number}: y" for number in range(1_000)], 431),
        (["X-Many: y"] * 60, 431),
        (["Cookie: " + "a=b; " * 3_000], 431),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 2"], 400),
        (["Content-Length: 2", "Content-Length: 3"], 400),
        (["Content-Length: 2", "Content-Length: 2"], 400),
        (["Transfer-Encoding: chunked, identity"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Host: other"], 400),
        (["X-Folded: a", " Transfer-Encoding: chunked"], 400),
        (["X\x00: a"], 400),
        (["X-Null: a\x00b"], 400),
        (["Content-Length: +2"], 400),
        (["Content-Length: 0x2"], 400),
        (["Content-Length: 2, 2"], 400),
    ],
)
def test_headers_that_are_too_many_or_smuggle(collector: RunningCollector, lines: list[str], expected: int) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = collector.raw(head(collector, *lines) + b"{}" + smuggled)
    assert status(answer) in {expected, 0}  # 0: closed while the client was still sending
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not collector.log.messages


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET {path} HTTP/1.1", 405), ("HEAD {path} HTTP/1.1", 405), ("DELETE {path} HTTP/1.1", 405),
        ("BREW {path} HTTP/1.1", 400), ("POST http://evil.example{path} HTTP/1.1", 400),
        ("CONNECT evil.example:443 HTTP/1.1", 400), ("OPTIONS * HTTP/1.1", 404), ("TRACE {path} HTTP/1.1", 405),
        ("POST {path} HTTP/2.0", 400), ("POST {path} HTTP/0.9", 400), ("POST  {path} HTTP/1.1", 400),
        ("\x16\x03\x01", 400),
        ("POST /../../etc/passwd HTTP/1.1", 404), ("POST //api/v1/attribution/track/event HTTP/1.1", 404),
        ("POST {path}/ HTTP/1.1", 404), ("POST {path}%00 HTTP/1.1", 404), ("POST {path}\xff HTTP/1.1", 400),
        ("POST /%2e%2e/api HTTP/1.1", 404), ("GET /api/v1/attribution/health/../track/event HTTP/1.1", 404),
        ("POST {path};x=1 HTTP/1.1", 404), ("POST " + "/x" * 10_000 + " HTTP/1.1", 431),
    ],
)  # fmt: skip
def test_methods_targets_and_paths(collector: RunningCollector, request_line: str, expected: int) -> None:
    line = request_line.format(path=EVENT).encode("latin-1")
    answer = collector.raw(line + b"\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert status(answer) in {expected, 400, 401} if expected == 400 else status(answer) == expected
    assert not collector.log.messages


def test_http_1_0_without_a_host_is_served(collector: RunningCollector) -> None:
    body = json.dumps(touch()).encode()
    lines = (
        f"POST {EVENT} HTTP/1.0\r\nAuthorization: Bearer {collector.keys['sk']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert status(collector.raw(lines.encode() + body)) == 200
    missing = collector.raw(lines.replace("HTTP/1.0", "HTTP/1.1").encode() + body)
    assert status(missing) == 400


def dribbled(collector: RunningCollector, first: bytes, drop: bytes) -> int:
    """Send bytes, then one drop after the other until the connection is closed; return the status of the answer."""
    deadline = time.monotonic() + 180
    with socket.create_connection(("127.0.0.1", collector.port), timeout=120) as connection:
        connection.sendall(first)
        connection.settimeout(0.1)
        got = b""
        while time.monotonic() < deadline:
            try:
                connection.sendall(drop)
                part = connection.recv(65_536)
                if not part:
                    return status(got)
                got += part
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):  # what it had answered before can still be read
                return status(got + received(connection))
    raise AssertionError("the connection stays open")


def test_a_slow_client_is_let_go_in_headers_body_and_between_requests(tmp_path: Path) -> None:
    with running_collector(tmp_path, header_seconds=0.6, body_seconds=0.8, idle_seconds=1.0) as running:
        assert dribbled(running, b"POST / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n") == 408
        assert dribbled(running, head(running, "Content-Length: 5000"), b" ") == 408
        assert dribbled(running, head(running, "Transfer-Encoding: chunked"), b"1\r\n \r\n") == 408
        health = head(running, path="/api/v1/attribution/health", method="GET")
        assert dribbled(running, health, b"") in {200, 408}  # 408 where this test was slower than the deadline
        assert dribbled(running, b"", b"\r\n") in {0, 408}


def test_connections_have_a_limit_and_others_are_served_again(collector: RunningCollector) -> None:
    opened = [socket.create_connection(("127.0.0.1", collector.port), timeout=120) for _ in range(80)]
    for connection in opened:
        connection.setblocking(False)

    def is_closed(connection: socket.socket) -> bool:
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    try:
        wait_until(lambda: sum(map(is_closed, opened)) >= 15, "the limit of 60 fires")
    finally:
        for connection in opened:
            connection.close()
    wait_until(lambda: metrics.connections._value.get() < 5, "the connections are gone")


def test_a_client_that_closes_in_its_body_leaves_nothing(collector: RunningCollector) -> None:
    body = json.dumps([touch(event_id=str(number)) for number in range(20)]).encode()
    for length in (0, 1, len(body) // 2, len(body) - 1):
        with socket.create_connection(("127.0.0.1", collector.port), timeout=120) as connection:
            connection.sendall(head(collector, f"Content-Length: {len(body)}") + body[:length])
    time.sleep(0.3)
    assert not collector.log.messages


def test_pipelined_requests_are_answered_in_order(collector: RunningCollector) -> None:
    bodies = [json.dumps(touch(event_id=f"p{number}")).encode() for number in range(5)]
    last: list[list[str]] = [[], [], [], [], ["Connection: close"]]
    data = b"".join(
        head(collector, f"Content-Length: {len(body)}", *more) + body for body, more in zip(bodies, last, strict=True)
    )
    with socket.create_connection(("127.0.0.1", collector.port), timeout=120) as connection:
        connection.sendall(data)
        answers = received(connection)
    ids = [part.split(b'"event_ids":["')[1].split(b'"')[0] for part in answers.split(b"HTTP/1.1 200")[1:]]
    assert ids == [b"p0", b"p1", b"p2", b"p3", b"p4"]


def test_many_at_once_are_all_answered(collector: RunningCollector) -> None:
    statuses: list[int] = []

    def work(number: int) -> None:
        statuses.extend(collector.post(touch(event_id=f"m{number}-{each}")).status for each in range(5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert statuses == [200] * 50


@pytest.mark.parametrize(
    "host", ["[", "[::1", "a b", "]", "::", "\xff", "a" * 3000, "[::1]:x", "host:99999", "", "@", "/"]
)
def test_a_hostile_host_makes_no_cookie_domain(collector: RunningCollector, host: str) -> None:
    record = touch(anonymous_id=None, consent={"ad_storage": True})
    headers = {"Host": host, "Sec-Fetch-Site": "same-site"}
    answer = collector.post(record, key="wk", headers=headers)
    assert answer.status in {200, 400}
    assert "Domain" not in (answer.headers["Set-Cookie"] or "")


@pytest.mark.parametrize("text", ["2026-06-01T09:30:00+02:00", "1790000000000000", "9" * 20, "2026-06-01T09:30:00Z"])
def test_the_time_of_sending_may_stand_in_the_url(collector: RunningCollector, text: str) -> None:
    answer = collector.post(
        touch(occurred_at=text if "T" in text else 1_790_000_000_000_000), path=f"{EVENT}?sent_at={text}"
    )
    assert answer.status == 200
    assert collector.post(touch(), path=f"{EVENT}?sent_at=yesterday").status == 400


def test_a_producer_that_failed_for_good_ends_the_process_and_its_records_are_spooled(tmp_path: Path) -> None:
    class FatalError:
        def __str__(self) -> str:
            return "fenced"

        def fatal(self) -> bool:
            return True

    class Failed(MemoryTransport):
        def send(self, message: Message, on_done: OnDone) -> None:
            super().send(message, lambda _error, sent: on_done(FatalError(), sent))

    with running_collector(tmp_path, Failed(), spool=True) as running:
        assert running.post([touch(event_id="f1"), touch(event_id="f2")]).status == 202
        wait_until(lambda: not running.server.is_ready, "the process is about to end")
        assert running.server.has_failed
    assert [each.event_id for path in segments(tmp_path) for each in read_segment(path, Damage())] == ["f1", "f2"]


def test_above_the_concurrency_requests_get_503_with_cors_and_retry_after(tmp_path: Path) -> None:
    with running_collector(tmp_path, max_concurrency=1, ack_seconds=40) as running:
        running.log.stall()
        first = threading.Thread(target=lambda: running.post(touch()))
        first.start()
        wait_until(lambda: metrics.inflight._value.get() == 1, "the first waits for the log")
        page = {"Origin": "https://www.acme-shop.com"}
        busy = running.post(touch(), key="wk", headers=page)
        running.log.stall(stalled=False)
        first.join(120)
        assert busy.status == 503
        assert int(busy.headers["Retry-After"]) >= 1
        assert busy.headers["Access-Control-Allow-Origin"] == page["Origin"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [*touch(), *purchase(), "type", "consent", "click_ids", "properties", "items", "user_data", "landing_url",
          "referrer", "user_id", "event_id", "sent_at", "is_bot", "linked_at"]  # fmt: skip
documents = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), json_values, max_size=8)
mutated = st.builds(lambda base, change: {**base, **change}, st.sampled_from([touch(), purchase()]), documents)
bodies = st.one_of(
    st.binary(max_size=200),
    mutated.map(lambda document: json.dumps(document).encode()),
    st.lists(mutated | documents, max_size=5).map(lambda listed: json.dumps(listed).encode()),
    mutated.map(lambda document: json.dumps({"events": [document], "sent_at": now()}).encode()),
)  # fmt: skip
HEADERS = ["Origin", "Content-Type", "Content-Encoding", "Cookie", "User-Agent", "X-Forwarded-For", "Sec-GPC",
           "Idempotency-Key", "traceparent", "Sec-Fetch-Site", "Referer", "DNT", "Expect", "Accept"]  # fmt: skip
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    body=bodies,
    headers=st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=4),
    path=st.sampled_from([EVENT, CONVERSION]),
    key=st.sampled_from(["wk", "sk"]),
)
def test_no_body_and_no_header_makes_a_500(
    shared: RunningCollector, body: bytes, headers: dict[str, str], path: str, key: str
) -> None:
    encoded = {name: value.strip().encode("latin-1").decode("latin-1") for name, value in headers.items()}
    if encoded.pop("Expect", None) is not None:
        encoded["Expect"] = "100-continue"
    answer = shared.post(body, key=key, path=path, headers=encoded)
    assert answer.status in {200, 400, 401, 403, 413, 415, 431}, answer.body


@given(bodies)
def test_the_readers_return_or_raise_what_they_say(body: bytes) -> None:
    try:
        batch = split(body, 100)
    except Refusal:
        return
    for raw in batch.records:
        for read in (read_touchpoint, read_conversion):
            with suppress(Rejected):
                read(raw)
