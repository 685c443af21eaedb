"""S28: what the image installs is listed, pinned by hash, and under licences that are known and told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKED = (ROOT / "requirements" / "image.txt").read_text()
README = (ROOT / "deploy" / "README.md").read_text()

# As packages write them: identifiers of SPDX, or the classifiers of before.
PERMISSIVE = {
    "0BSD", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0",
    "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "PSF-2.0", "Public Domain", "Zlib",
}  # fmt: skip
# Weak copyleft: used as they are, and named in deploy/README.md with what they ask for.
WEAK_COPYLEFT = {
    "certifi": "Mozilla Public License 2.0 (MPL 2.0)",
    "psycopg": "LGPL-3.0-only",
    "psycopg-binary": "LGPL-3.0-only",
}
UNDECLARED = {"crawler-user-agents"}  # MIT by the text that it carries
WITHOUT_TEXT = {"iso4217"}  # public domain
OTHER_PLATFORMS = {"httpx2-jsfetch"}

NAMES = sorted(set(re.findall(r"(?m)^([\w.-]+)(?:\[[^\]]*\])?==", LOCKED)) - OTHER_PLATFORMS)


def licences(name: str) -> set[str]:
    found = metadata.metadata(name)
    if "License-Expression" in found:
        return set(re.split(r" AND | OR ", found["License-Expression"].replace("(", "").replace(")", "")))
    named = [each for each in found.get_all("Classifier") or [] if each.startswith("License ::")]
    if named:
        return {each.rpartition(" :: ")[2] for each in named}
    return {found["License"]} if "License" in found else set()


def texts(name: str) -> list[str]:
    pattern = re.compile(r"licen[sc]e|copying|notice", re.IGNORECASE)
    files = [file for file in metadata.files(name) or [] if pattern.search(file.name) and file.suffix != ".py"]
    return [Path(str(file.locate())).read_text(encoding="utf-8", errors="replace") for file in files]


@pytest.mark.parametrize("name", NAMES)
def test_s28_each_package_of_the_image_has_a_licence_that_is_known(name: str) -> None:
    if name in WEAK_COPYLEFT:
        assert licences(name) == {WEAK_COPYLEFT[name]}
        assert f"`{name}`" in README
    elif name in UNDECLARED:
        assert any("Permission is hereby granted, free of charge" in text for text in texts(name))
    else:
        assert licences(name), "it declares none: read its text, then add it to UNDECLARED"
        assert licences(name) <= PERMISSIVE
    assert texts(name) or name in WITHOUT_TEXT


def test_s28_each_package_is_pinned_with_hashes_and_listed(tmp_path: Path) -> None:
    for package in re.split(r"\n(?=\S)", LOCKED.strip()):
        assert "==" in package, package
        assert "--hash=sha256:" in package, package
    target = tmp_path / "sbom.cdx.json"
    tool = Path(sys.executable).with_name("cyclonedx-py")
    words = ["requirements", "requirements/image.txt", "--pyproject", "pyproject.toml", "--output-reproducible"]
    subprocess.run([tool, *words, "--of", "JSON", "-o", target], cwd=ROOT, check=True, capture_output=True)
    listed = json.loads(target.read_text())
    assert {each["name"] for each in listed["components"]} == set(NAMES) | OTHER_PLATFORMS
    assert all(each["version"] and each["externalReferences"] for each in listed["components"])
    assert "://" not in LOCKED


def test_s28_the_image_carries_its_list() -> None:
    recipe = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "cyclonedx-py environment /opt/attributary/bin/python" in recipe
    assert recipe.count("FROM ${PYTHON_IMAGE}") == recipe.count("FROM ") == 2  # one digest pins all of it
