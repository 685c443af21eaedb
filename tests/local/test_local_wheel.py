"""What is installed into other teams' services: one package, with its data files."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(target: str, sources: Path, folder: Path) -> Path:
    """Build an sdist or a wheel and return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def listed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return listed(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_is_the_same(names: set[str], tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        members = archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert len(members) == len(set(members))
    (sources,) = (tmp_path / "unpacked").iterdir()
    assert listed(build("wheel", sources, tmp_path)) == names


@pytest.mark.slow
def test_only_one_name_goes_into_site_packages(names: set[str]) -> None:
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {"attributary"}


@pytest.mark.slow
def test_everything_that_is_read_at_run_time_is_there(names: set[str]) -> None:
    for folder, pattern in (
        ("consumers/store/migrations", "*.sql"),
        ("schemas", "*.avsc"),
        ("schemas", "*.yaml"),
        ("schemas/published", "*/*.avsc"),
        ("producers", "*.yaml"),
        ("src/attributary/local", "*.xml"),
    ):
        files = list((ROOT / folder).glob(pattern))
        assert files
        for file in files:
            shipped = str(file.relative_to(ROOT)).removeprefix("src/attributary/")
            assert f"attributary/{shipped}" in names
    assert "attributary/py.typed" in names
