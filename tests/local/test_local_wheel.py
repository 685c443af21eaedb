"""What is installed into other teams' services: one package, with its data files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


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
