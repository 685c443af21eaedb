"""Further members of each kind of abuse: encodings, JSON, media types, framing, clocks, clients that leave, long texts.

As in test_collector_hostile.py a request after the abuse must be served. Nothing here measures time: what must not be
slow is refused before it is walked, and the refusal is what is tested.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from attributary.producers.collector import metrics, protocol
from attributary.producers.collector.answers import Refusal
from attributary.producers.collector.body import inflate
from attributary.producers.collector.payloads import Rejected, read_touchpoint, split
from attributary.producers.landing import is_robot
from attributary.producers.matching.user_data import hash_user_data_with_remarks
from tests.fixtures.collector import (
    CONVERSION,
    EVENT,
    RunningCollector,
    make_key,
    now,
    purchase,
    received,
    running_collector,
    touch,
    wait_until,
)
from tests.fixtures.collector_process import segments

JUNE = "2026-06-01T09:30:00Z"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    with running_collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture
def collector(shared: RunningCollector) -> Iterator[RunningCollector]:
    shared.log.messages.clear()
    yield shared
    assert shared.post(touch(event_id="after")).status == 200


def head(collector: RunningCollector, *lines: str, version: str = "1.1") -> bytes:
    first = (f"POST {EVENT} HTTP/{version}", "Host: localhost", f"Authorization: Bearer {collector.keys['sk']}")
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


RECORD = json.dumps(touch(event_id="r", occurred_at=JUNE)).encode()


@pytest.mark.parametrize(
    "body",
    [
        RECORD.decode().encode("utf-16-le"), RECORD.decode().encode("utf-32"), RECORD.decode().encode("cp037"),
        b"\xef\xbb\xbf" + RECORD, b"\xff\xfe" + RECORD, RECORD + b"\x00", RECORD + b"\xff", RECORD + b"]",
        RECORD + RECORD, RECORD + b"\n" + RECORD, b"\x1e" + RECORD + b"\n", b")]}',\n" + RECORD, b"\xc2\xa0" + RECORD,
        b"\x0c" + RECORD, RECORD[:-1], RECORD.replace(b'"r"', b'"\xc0\x80"'), RECORD.replace(b'"r"', b'"\xed\xa0\x80"'),
        RECORD.replace(b'"r"', b'"\xf4\x90\x80\x80"'), RECORD.replace(b'"r"', b'"\xf0\x9f"'),
        RECORD.replace(b'"r"', b'"a\tb"'), RECORD.replace(b'"r"', b'"a\nb"'), RECORD.replace(b'"r"', b'"\\x41"'),
        RECORD.replace(b'"r"', b'"\\ud83d"'), RECORD.replace(b'"r"', b'"\\udc00\\ud800"'),
        RECORD.replace(b'"r"', b"'r'"), RECORD.replace(b'"r"', b"r"),
        RECORD.replace(b'"r"', b"NaN"), RECORD.replace(b'"r"', b"-Infinity"),
        RECORD.replace(b'"r"', b"1e400"), RECORD.replace(b'"r"', b"9" * 5_000), RECORD.replace(b'"r"', b"0x10"),
        RECORD.replace(b'"r"', b"[" * 100_000 + b"]" * 100_000), RECORD.replace(b'"r"', b'"\\u0000"'),
        RECORD.replace(b"{", b'{"\\ud800":1,', 1), RECORD.replace(b"{", b'{"\\u0000":1,', 1),
        RECORD.replace(b"{", b'{"":1,', 1), RECORD.replace(b"{", b'{"__class__":"os",', 1),
        RECORD.replace(b"{", b'{"event_id":{},', 1), b"event_id=r&anonymous_id=a", b"<xml/>", b"--x\r\n\r\n{}\r\n--x--",
        b"\x1f\x8b\x08" + b"\x00" * 20, gzip.compress(RECORD),
    ],
    ids=range(43),
)  # fmt: skip
def test_what_is_no_json_of_a_record_is_named_and_leaves_nothing(collector: RunningCollector, body: bytes) -> None:
    for path in (EVENT, CONVERSION):
        answer = collector.post(body, path=path)
        assert answer.status == 400
        assert answer.json["detail"]
    assert not collector.log.messages


@pytest.mark.parametrize("depth", [1_000, 100_000, 2_000_000])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"events":', b"}]")])
def test_depth_is_refused_whatever_the_limit_of_the_body(depth: int, opens: bytes, closes: bytes) -> None:
    body = opens * depth + b"1" + closes * depth
    with suppress(Refusal):  # or it is split, and refused as a record
        assert len(split(body, 1_000).records) == 1
    with pytest.raises(Rejected):
        read_touchpoint(body)


def test_a_field_written_with_escapes_is_the_field(collector: RunningCollector) -> None:
    escaped = RECORD.replace(b"event_id", b"\\u0065vent_id")
    assert collector.post(escaped).json["event_ids"] == ["r"]
    hidden = RECORD.replace(b"{", b'{"\\u0074ype":"conversion",', 1)
    assert collector.post(hidden).json["rejected"][0]["field"] == "type"
    link = {"\u0074ype": "identity_link", "event_id": "l", "user_id": "u1", "anonymous_id": "a1", "linked_at": JUNE}
    written = json.dumps(link).replace('"type"', '"\\u0074\\u0079pe"').encode()
    assert collector.post(written).json["event_ids"] == ["l"]


@pytest.mark.parametrize(
    ("encoding", "pack", "status"),
    [
        ("gzip", gzip.compress, 200), ("GZIP", gzip.compress, 200), (" gzip ", gzip.compress, 200),
        ("x-gzip", gzip.compress, 200), ("identity", bytes, 200), ("", bytes, 200),
        ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]), 200),  # members are one stream
        ("gzip", lambda data: gzip.compress(data) + gzip.compress(b"{}"), 400),
        ("gzip", lambda data: gzip.compress(data) + b"\x00" * 512, 400),
        ("gzip", lambda data: gzip.compress(data) + b"{}", 400),
        ("gzip", zlib.compress, 400), ("gzip", bytes, 400),
        ("gzip", lambda data: gzip.compress(gzip.compress(data)), 400),
        ("deflate", zlib.compress, 415), ("br", bytes, 415), ("zstd", bytes, 415), ("compress", bytes, 415),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data)), 415), ("gzip;q=1", gzip.compress, 415),
        ("aws-chunked", bytes, 415), ("chunked", bytes, 415), ("\xe9", bytes, 415),
    ],
)  # fmt: skip
def test_encodings(collector: RunningCollector, encoding: str, pack: Callable[[bytes], bytes], status: int) -> None:
    answer = collector.post(pack(RECORD), headers={"Content-Encoding": encoding})
    assert answer.status == status
    assert len(collector.log.messages) == (status == 200)
    assert (answer.headers["Accept-Encoding"] == "gzip") is (status == 415)


def test_a_gzip_header_of_the_senders_choice_is_no_way_around_the_limit() -> None:
    packed = gzip.compress(b"{}")
    named = packed[:3] + b"\x08" + packed[4:10] + b"n" * 100_000 + b"\x00" + packed[10:]  # FNAME
    assert inflate(named, 1_000) == b"{}"
    with pytest.raises(Refusal):
        inflate(packed[:3] + b"\x08" + packed[4:10] + b"n" * 100_000, 1_000)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200), ("application/json; charset=utf-8", 200), ("APPLICATION/JSON", 200),
        ("text/plain;charset=UTF-8", 200), ("application/json;charset=utf-16", 200),  # the body is UTF-8 all the same
        ("", 415), ("*/*", 415), ("application/x-www-form-urlencoded", 415), ("multipart/form-data; boundary=x", 415),
        ("application/json, text/plain", 415), ("application/vnd.api+json", 415), ("application/x-ndjson", 415),
        ("text/html", 415), ("application/avro", 415), ("json", 415), ("application/json\xff", 415),
    ],
)  # fmt: skip
def test_media_types(collector: RunningCollector, media_type: str, status: int) -> None:
    assert collector.post(RECORD, headers={"Content-Type": media_type}).status == status


@pytest.mark.parametrize(
    ("at", "is_taken"),
    [
        (JUNE, True), ("2026-06-01T09:30:00.123456+14:00", True), ("2026-06-01t09:30:00z", None), (0, None), (-1, None),
        (1_790_000_000, None), (1_790_000_000_000, None),  # seconds, milliseconds
        (1_790_000_000_000_000, True), (2**63, False), (-(2**63), False), (10**40, False), (1.79e15, False),
        ("1790000000000000", False), ("2026-06-01T09:30:00", False), ("2026-06-01", False), ("now", False), ("", False),
        ("2026-02-30T00:00:00Z", False), ("2026-06-01T25:00:00Z", False), ("2026-06-30T23:59:60Z", False),
        ("2026-06-01T09:30:00+25:00", False), ("0000-01-01T00:00:00Z", False), ("9999-12-31T23:59:59Z", False),
        ("10000-01-01T00:00:00Z", False), ("\u0662\u0660\u0662\u0666-06-01T09:30:00Z", False),
        ("2026-06-01T09:30:00Z" + " " * 300, False), ("2026-06-01T09:30:00.0000000000000000001Z", None), (True, False),
        (None, False), ([], False), ({"$date": 1}, False),
    ],
)  # fmt: skip
def test_the_range_of_times(collector: RunningCollector, at: Any, is_taken: bool | None) -> None:
    answer = collector.post(touch(event_id="t", occurred_at=at))
    assert answer.status in {True: {200}, False: {400}, None: {200, 400}}[is_taken]
    if answer.status == 400:
        assert answer.json["rejected"][0]["field"] == "occurred_at"


@pytest.mark.parametrize(
    ("lines", "sent", "expected"),
    [
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\nX: trailer\r\n\r\n", [400]),
        (["Transfer-Encoding: chunked"], b"ffffffffffffffff1\r\nx\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding: chunked"], b"-1\r\nx\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding: chunked"], b"2 \r\n{}\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding: chunked"], b"2;" + b"e" * 100_000 + b"\r\n{}\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding: chunked"], b"2\r\n{}x\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding: gzip, chunked"], b"2\r\n{}\r\n0\r\n\r\n", [400]),
        (["Transfer-Encoding:\x0bchunked"], b"2\r\n{}\r\n0\r\n\r\n", [400]),
        (["Content-Length: 2 2"], b"{}", [400]), (["Content-Length: 2\t"], b"{}", [400]),
        (["Content-Length:"], b"{}", [400]),
        (["Content-Length: 18446744073709551618"], b"{}", [400]), (["Content-Length: 2", "Host : x"], b"{}", [400]),
        (["Content-Length: 2", "Upgrade: websocket", "Connection: Upgrade"], b"{}", [400]),
        (["Content-Length: 2", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"], b"{}", [400]),
        (["Content-Length: 2", "Authorization: Bearer sk_other"], b"{}", [400]),
    ],
)  # fmt: skip
def test_framing(collector: RunningCollector, lines: list[str], sent: bytes, expected: list[int]) -> None:
    answers = collector.raw(head(collector, *lines, "Connection: close") + sent)
    assert statuses(answers) == expected
    assert not collector.log.messages


def test_chunked_in_http_1_0_and_bytes_behind_a_body_are_no_second_request(collector: RunningCollector) -> None:
    second = head(collector, f"Content-Length: {len(RECORD)}") + RECORD
    old = collector.raw(head(collector, "Transfer-Encoding: chunked", version="1.0") + b"0\r\n\r\n" + second)
    assert statuses(old)[:1] == [400]
    collector.log.messages.clear()
    closing = head(collector, f"Content-Length: {len(RECORD)}", "Connection: close") + RECORD
    assert statuses(collector.raw(closing + second)) == [200]
    garbage = head(collector, f"Content-Length: {len(RECORD)}") + RECORD + b"\x00\x01garbage\r\n\r\n"
    assert statuses(collector.raw(garbage))[:1] in ([200], [400])


def flood(connection: socket.socket, data: bytes) -> None:
    """Send until the connection is closed."""
    while True:
        connection.sendall(data)


def test_a_client_that_never_reads_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests are pipelined; each answer but the first begins after the last byte was read."""
    with running_collector(tmp_path, ack_seconds=40) as running, socket.socket() as connection:
        connection.connect(("127.0.0.1", running.port))
        connection.settimeout(120)
        connection.sendall(head(running, f"Content-Length: {len(RECORD)}") + RECORD)
        first = connection.recv(65_536)
        while not first.endswith(b"}"):
            first += connection.recv(65_536)
        assert statuses(first) == [200]
        running.log.stall()  # from now on no answer ends
        monkeypatch.setattr(protocol, "RESPONSE_SECONDS", 0.3)
        connection.sendall((head(running, f"Content-Length: {len(RECORD)}") + RECORD) * 3)
        assert received(connection) == b""  # until it is closed
        monkeypatch.undo()
        running.log.stall(stalled=False)
        assert running.post(touch()).status == 200


def test_a_flood_of_pipelined_requests_ends_the_connection_and_takes_no_memory(collector: RunningCollector) -> None:
    before = metrics.rejected.labels("busy")._value.get()
    ask = b"GET /api/v1/attribution/health HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
    with (
        socket.create_connection(("127.0.0.1", collector.port), timeout=120) as connection,
        pytest.raises(OSError, match=r"reset|Broken pipe"),
    ):
        flood(connection, ask)
    assert metrics.rejected.labels("busy")._value.get() == before + 1


def test_a_client_that_leaves_before_the_answer_has_sent_its_record(tmp_path: Path) -> None:
    with running_collector(tmp_path, ack_seconds=40) as running:
        running.log.stall()
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=120)
        connection.sendall(head(running, f"Content-Length: {len(RECORD)}") + RECORD)
        wait_until(lambda: metrics.inflight._value.get() == 1, "the request waits for the log")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        connection.close()
        running.log.stall(stalled=False)
        wait_until(lambda: metrics.inflight._value.get() == 0, "the request has ended")
        assert [record["event_id"] for record in running.log.records("touchpoint")] == ["r"]
        assert running.post(RECORD).json["event_ids"] == ["r"]  # it comes again: the same bytes
        first, second = running.log.messages
        assert first[:3] == second[:3]


def test_a_clock_that_jumps_changes_no_record_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, real_ns = time.time, time.time_ns
    day = 86_400
    with running_collector(tmp_path, spool=True, requests_per_second=1_000.0, ack_seconds=0.3) as running:
        taken = []
        for number, jump in enumerate((0, -3 * day, 400 * day, -400 * day, 0)):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            monkeypatch.setattr(time, "time_ns", lambda jump=jump: real_ns() + jump * 1_000_000_000)
            assert running.post(touch(event_id="r", occurred_at="2024-01-01T00:00:00Z")).status in {200, 202}
            late = running.post(touch(occurred_at=now()), key="wk")
            assert late.status in ({400} if jump else {200, 202})  # older than a day by this clock, or from its future
            running.log.stall()
            taken.append(f"spooled-{number}")
            assert running.post(touch(event_id=taken[-1], occurred_at="2024-01-01T00:00:00Z")).status == 202
            running.log.stall(stalled=False)
        wait_until(lambda: not segments(tmp_path), "the spool is drained, whatever its files are called")
        logged = [(record["event_id"], message.value) for record, message in
                  zip(running.log.records("touchpoint"), running.log.messages, strict=True)]  # fmt: skip
    assert set(taken) <= {event_id for event_id, _ in logged}
    assert len({value for event_id, value in logged if event_id == "r"}) == 1


def test_two_cookies_and_two_keys(collector: RunningCollector) -> None:
    valid, other = "1.01890a5d-ac96-774b-bcce-b302099a8057", "1.01890a5d-ac96-774b-bcce-b302099a8058"
    for cookie, expected in (
        (f"_atb=junk; _atb={valid}", valid), (f"_atb={valid}; _atb={other}", valid), (f"_atb={other};_atb=1.x", other),
    ):  # fmt: skip
        record = touch(anonymous_id=None, consent={"ad_storage": True})
        answer = collector.post(record, key="wk", headers={"Cookie": cookie, "Sec-Fetch-Site": "same-site"})
        assert answer.json["anonymous_id"] == expected[2:]


def test_no_path_and_no_method_makes_a_new_label(collector: RunningCollector) -> None:
    def labels() -> set[tuple[str, ...]]:
        return {
            tuple(sample.labels.values())
            for metric in metrics.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    collector.request("GET", "/warm")
    wait_until(lambda: any(endpoint == "other" for endpoint, _ in labels()), "it is counted")  # after its answer
    before = {endpoint for endpoint, _ in labels()}
    for number in range(50):
        collector.request("GET", f"/{number}/track/event{number}")
        collector.request(("PUT", "PATCH", "PURGE")[number % 3], f"/x{number}/?{number}")
    assert {endpoint for endpoint, _ in labels()} == before


LONG = ["a" * 200_000, "\ufdfa" * 30_000, "\u200b" * 30_000, "a\u0301" * 30_000, "1" * 200_000, "@" * 200_000]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_texts_that_no_rule_allows_are_refused_before_they_are_walked(collector: RunningCollector, text: str) -> None:
    for field in (
        "user_id",
        "anonymous_id",
        "landing_url",
        "referrer",
        "user_agent",
        "event_id",
        "channel",
        "utm_term",
    ):
        record = touch(event_id="x", channel=None, landing_url="https://shop.example/?gclid=A") | {field: text}
        [rejected] = collector.post(record).json["rejected"]
        assert rejected["field"] == field
        assert rejected["rule"] == "must have 4096 characters at most"
    assert not collector.log.messages


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_what_is_too_long_to_name_a_person_is_left_out_unhashed(text: str) -> None:
    found = hash_user_data_with_remarks({"email": text, "country": text, "first_name": text, "phone": text})
    assert not found.user_data["meta_hashes"]
    assert not found.user_data["google_hashes"]
    assert "email left out: longer than 1000 characters" in found.left_out["meta"]
    assert text[:20] not in str(found)


def test_the_agents_first_characters_decide_about_a_robot() -> None:
    assert is_robot("Googlebot/2.1 " + "x" * 100_000)
    assert not is_robot("Mozilla/5.0 " + "x" * 100_000 + "Googlebot/2.1")


def test_money_and_ids_in_other_digits(collector: RunningCollector) -> None:
    for value in (
        "\uff11\uff19.99",
        "\u0661",
        "1e2",
        "1_000",
        "1,99",
        "+1",
        " 1",
        "1 ",
        "0x1",
        "Infinity",
        "--1",
        "1.",
        ".5",
    ):
        answer = collector.post(purchase(value=value), path=CONVERSION)
        assert answer.status == 400, value
        assert answer.json["rejected"][0]["field"] == "value"
    for raw in (b"1E2", b"1e400", b"-0", b"19.999", b"1" * 16, b"[1]", b"{}", b"true"):
        body = json.dumps(purchase(value="@")).encode().replace(b'"@"', raw)
        assert collector.post(body, path=CONVERSION).status == (200 if raw == b"-0" else 400), raw


def test_a_second_authorization_is_no_second_chance(tmp_path: Path) -> None:
    with running_collector(tmp_path) as running:
        ended = make_key(tmp_path / "keys.json", "sk", expires_at=int(time.time()) - 1)
        two = head(running, f"Content-Length: {len(RECORD)}", f"Authorization: Bearer {ended}", "Connection: close")
        assert statuses(running.raw(two + RECORD)) == [400]
        assert not running.log.messages
