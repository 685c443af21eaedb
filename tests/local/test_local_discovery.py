"""What each way to a broker needs, and how it says that something is missing."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from attributary.local.docker_broker import docker_obstacle
from attributary.local.kafka_maven import fetch_jars, java
from attributary.local.paths import cache_dir, state_dir
from attributary.local.process import ProcessFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine() -> Iterator[tuple[int, list[bytes]]]:
    """A Docker engine that answers pings: its port, and a list whose only entry is what it answers."""
    answer = [b"HTTP/1.0 200 OK\r\n\r\nOK"]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1024).startswith(b"GET /_ping ")
                connection.sendall(answer[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], answer
        thread.join(120)


def test_an_engine_that_answers_is_no_obstacle(
    engine: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine[0]}")
    assert docker_obstacle() is None


def test_an_engine_that_refuses_is_one(engine: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    engine[1][0] = b"HTTP/1.0 500 Internal Server Error\r\n\r\n"
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine[0]}")
    assert docker_obstacle() == "the Docker engine answers, but does not serve"


def test_no_engine_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert docker_obstacle() == "no Docker engine answers"
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port}")
    assert docker_obstacle() == "no Docker engine answers"


def test_jars_that_were_fetched_need_no_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTRIBUTARY_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessFailedError, match="there is no Maven"):
        fetch_jars()
    fetched = cache_dir("kafka")
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\nfor last; do :; done\n/bin/mkdir -p "${last#*=}"\n: > "${last#*=}/kafka_2.13-0.jar"\n')
    maven.chmod(0o755)
    jars = fetch_jars()
    assert jars.parent == fetched
    assert [file.name for file in jars.iterdir()] == ["kafka_2.13-0.jar"]
    maven.unlink()
    assert fetch_jars() == jars
    assert list(fetched.iterdir()) == [jars]


def test_a_failed_fetch_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTRIBUTARY_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho no route to host\nexit 1\n")
    maven.chmod(0o755)
    with pytest.raises(ProcessFailedError, match=r"Maven ended with 1:\nno route to host"):
        fetch_jars()
    assert list(cache_dir("kafka").iterdir()) == []


@pytest.mark.parametrize(
    ("printed", "complaint"), [('openjdk version "11.0.2"', "too old"), ('java version "1.8.0_202"', "too old")]
)
def test_an_old_java_is_refused(printed: str, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
    program.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessFailedError, match=complaint):
        java()


def test_no_java_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessFailedError, match="there is no Java"):
        java()


def test_the_home_of_local_files_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTRIBUTARY_HOME", str(tmp_path / "home"))
    assert cache_dir("kafka") == tmp_path / "home" / "kafka"
    assert state_dir("up").stat().st_mode & 0o777 == 0o700  # S24: events hold personal data
    state_dir("up").chmod(0o755)  # as an earlier version made it
    assert state_dir("up").stat().st_mode & 0o777 == 0o700
