"""Apache Kafka's jars, fetched once by Maven and kept.

Contract: `fetch_jars()` gives a folder with the broker and everything it needs; the first call runs Maven
(about 45 MB, a few seconds), later ones find the folder. The folder's name carries a digest of the pom, so
another Kafka version is another folder, and a fetch that was cut short is never mistaken for a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from attributary.local.paths import cache_dir
from attributary.local.process import ProcessFailedError, run

POM = Path(__file__).with_name("kafka-pom.xml")
_OLDEST_JAVA = 17
_FETCH_SECONDS = 600.0


def java() -> Path:
    """The Java program to use: of JAVA_HOME, else of PATH.

    Raises:
        ProcessFailedError: when there is none, or it is older than Kafka 4 needs.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise ProcessFailedError(f"there is no Java (Kafka needs {_OLDEST_JAVA} or newer)")
    printed = run([found, "-version"], name="java -version", timeout_seconds=120.0)
    version = re.search(r'version "(\d+)', printed)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise ProcessFailedError(f"{found} is too old: Kafka needs Java {_OLDEST_JAVA} or newer")
    return Path(found)


def fetch_jars() -> Path:
    """The folder with Kafka's jars; runs Maven when it does not exist yet.

    Raises:
        ProcessFailedError: when Maven is missing or fails; the text holds what it printed.
    """
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    home = cache_dir("kafka")
    jars = home / f"jars-{digest}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise ProcessFailedError("there is no Maven (mvn) to fetch Kafka's jars with")
    lock = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes of tests start together: one fetches, the others wait
        return jars if jars.is_dir() else _fetched(maven, home, jars)
    finally:
        os.close(lock)


def _fetched(maven: str, home: Path, jars: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as scratch:
        fetched = Path(scratch) / "jars"
        argv = [maven, "--batch-mode", "--no-transfer-progress", "--quiet", "--file", str(POM)]
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        run([*argv, *goal], name="Maven", timeout_seconds=_FETCH_SECONDS, cwd=Path(scratch))
        if not any(fetched.glob("kafka_2.13-*.jar")):
            raise ProcessFailedError("Maven ended well, but Kafka's jar is not among what it fetched")
        # Another process may have been quicker; its folder is as good as this one.
        with suppress(OSError):
            fetched.rename(jars)
    return jars
