"""What a release must show, run by `make release-check`: a user's machine, not a developer's.

Builds sdist and wheel, the wheel from the unpacked sdist. Installs the wheel into clean environments of Python 3.11 and
of the newest Python at hand, and runs `attributary demo` there, outside the checkout. Ends with 1 at the first fault.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEWEST, OLDEST = 20, 11  # minor versions of Python 3 to look for, the newest first
TOUCHPOINTS = "2000"


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command and return what it printed; ends the check when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.stdout.write(done.stdout[-4000:])
        sys.exit(f"release-check: `{' '.join(str(part) for part in command)}` ended with {done.returncode}")
    return done.stdout


def interpreters() -> list[tuple[str, Path]]:
    """Python 3.11 and the newest one, by the names on the path or in pyenv's folder; each shown to run."""
    found: dict[int, Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(NEWEST, OLDEST - 1, -1):
        named = shutil.which(f"python3.{minor}")
        for program in [*sorted(pyenv.glob(f"3.{minor}.*/bin/python3")), *([Path(named)] if named else [])]:
            asked = subprocess.run([program, "-c", "import venv"], capture_output=True, check=False)
            if asked.returncode == 0:
                found.setdefault(minor, program)
    if OLDEST not in found:
        sys.exit(f"release-check: no Python 3.{OLDEST} at hand; install it, or put it on the path")
    return [(f"3.{minor}", found[minor]) for minor in sorted({OLDEST, max(found)})]


def build(folder: Path) -> Path:
    """Build sdist and wheel into a folder; return the wheel's path."""
    hatchling = (sys.executable, "-m", "hatchling", "build")
    run(*hatchling, "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (sources,) = (folder / "unpacked").iterdir()
    run(*hatchling, "-t", "wheel", "-d", folder, cwd=sources)
    (wheel,) = folder.glob("*.whl")
    print(f"built {sdist.name} and, from it, {wheel.name}")
    return wheel


def check(name: str, python: Path, wheel: Path, folder: Path, version: str) -> None:
    """Install the wheel into a clean environment of one Python and run the demo from it."""
    environment = folder / f"python-{name}"
    run(python, "-m", "venv", environment, cwd=folder)
    pip = (environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", "--require-hashes", "-r", ROOT / "requirements" / "embedded.txt", cwd=folder)
    run(*pip, "install", "--no-deps", wheel, cwd=folder)
    run(*pip, "check", cwd=folder)
    command = environment / "bin" / "attributary"
    said = run(command, "--version", cwd=folder).strip()
    if said != version:
        sys.exit(f"release-check: attributary --version says {said}, pyproject.toml says {version}")
    home = folder / f"home-{name}"
    home.mkdir()
    jars = ROOT / ".attributary" / "kafka"
    if jars.is_dir():  # Kafka's jars are fetched once
        (home / "kafka").symlink_to(jars)
    demo = ("demo", "--touchpoints", TOUCHPOINTS, "--folder", folder / f"demo-{name}")
    output = run(command, *demo, cwd=folder, ATTRIBUTARY_HOME=str(home))
    print(f"Python {name}: installed, {said}, demo ran ({len(output.splitlines())} lines)", flush=True)


def main() -> int:
    """Run the whole check; return the exit code."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    image = (ROOT / "deploy" / "k8s" / "kustomization.yaml").read_text("utf-8")
    if re.findall(r"newTag: (\S+)", image) != [version]:
        sys.exit(f"release-check: deploy/k8s/kustomization.yaml names another version than {version}")
    if not re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE):
        sys.exit(f"release-check: CHANGELOG.md has no section {version}")
    with tempfile.TemporaryDirectory(prefix="attributary-release-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as another user where this is root
        wheel = build(folder)
        for python, program in interpreters():
            check(python, program, wheel, folder, version)
    print(f"attributary {version} can be released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
