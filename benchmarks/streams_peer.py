"""The second peer: the same join in Kafka Streams, exactly once with RocksDB; see streams/StreamsPeer.java.

Maven fetches its jars once, into the bench's folder; `java` compiles the one source file as it starts it, before
anything is counted. Where Java or Maven is not there, the peer is named as not measured.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.local.kafka_maven import java
from attributary.local.process import ProcessFailedError, run
from attributary.schemas.codec import SINGLE_OBJECT
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from benchmarks.environment import PeerUnavailableError
from benchmarks.environment_setup import child_environment
from benchmarks.peer import PEER_TOPIC, create_topics
from benchmarks.workload import NAMES, Message, produce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.environment_setup import BenchServers

_HERE = Path(__file__).with_name("streams")
_THREADS = 2
_JOB_SECONDS = 900.0
_FETCH_SECONDS = 600.0


def run_streams(servers: BenchServers, messages: Sequence[Message]) -> dict[str, Any]:
    """Let Kafka Streams work through the touchpoints and conversions; returns its records, seconds and CPU seconds.

    Raises:
        PeerUnavailableError: it cannot be had here, or fails.
    """
    mixed = [Message(PEER_TOPIC, each.key, each.value) for each in messages if each.topic in (TOUCHPOINTS, CONVERSIONS)]
    state = Path(tempfile.mkdtemp(prefix="streams-", dir=servers.folder))
    try:
        program, jars = java(), _jars(servers.folder)
        create_topics(servers.broker.bootstrap)
        produce(servers.broker.bootstrap, mixed)
        arguments = [servers.broker.bootstrap, PEER_TOPIC, str(len(mixed)), str(_THREADS)]
        return servers.measured(lambda: _run(program, jars, arguments, state))
    except (ProcessFailedError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailableError(str(error)) from None
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _run(program: Path, jars: Path, arguments: list[str], state: Path) -> dict[str, Any]:
    schemas = []
    for topic in (TOUCHPOINTS, CONVERSIONS):
        schema = current_schemas()[NAMES[topic]]
        file = state / f"{NAMES[topic]}.avsc"
        file.write_text(json.dumps(schema.source), encoding="utf-8")
        schemas += [(SINGLE_OBJECT + schema.crc64).hex(), str(file)]
    line = [str(program), "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{jars}/*"]
    line += [str(_HERE / "StreamsPeer.java"), *arguments, str(state), *schemas]
    done = subprocess.run(
        line, env=child_environment(), capture_output=True, text=True, timeout=_JOB_SECONDS, check=False
    )
    if done.returncode or not done.stdout.strip():
        raise PeerUnavailableError(f"it ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2_000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _jars(folder: Path) -> Path:
    """Return the folder with the peer's jars; Maven fetches them at the first call."""
    pom = _HERE / "pom.xml"
    jars = folder / f"streams-jars-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise PeerUnavailableError("there is no Maven (mvn) to fetch its jars with")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as scratch:
        fetched = Path(scratch) / "jars"
        line = [maven, "--batch-mode", "--no-transfer-progress", "--quiet", "--file", str(pom)]
        line += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        run(line, name="Maven", timeout_seconds=_FETCH_SECONDS, cwd=Path(scratch))
        fetched.rename(jars)
    return jars
