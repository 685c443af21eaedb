"""The pages about webhooks and the page script: their commands run, their files are read, their scripts parse."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.page.script import page_script
from attributary.producers.collector.webhooks import read_sources
from attributary.producers.collector.webhooks.signed_json import SignedJsonMapping
from attributary.producers.collector.webhooks.source import _OPTIONS

ROOT = Path(__file__).resolve().parents[2]
WEBHOOKS = (ROOT / "docs" / "how-to" / "webhooks.md").read_text("utf-8")
WEB_PAGE = (ROOT / "docs" / "how-to" / "web-page.md").read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def run(line: str) -> str:
    found = CliRunner().invoke(app, shlex.split(line)[1:])
    assert found.exit_code == 0, f"{line}: {found.output}"
    return found.output


def test_the_commands_of_the_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples" / "webhooks", tmp_path / "examples" / "webhooks")
    monkeypatch.chdir(tmp_path / "examples" / "webhooks")
    lines = [line for block in blocks(WEBHOOKS, "sh") for line in block.splitlines()]
    assert [line for line in lines if not line.startswith("attributary ")] == ["cd examples/webhooks"]
    assert "shopify-shop-order-450789469" in run(lines[1])
    assert '"till-5512"' in run(lines[2])
    new, tag = blocks(WEB_PAGE, "sh")[0].splitlines()
    token = re.search(r"wk_\w+", run(new))
    assert token is not None
    printed = run(tag.replace("wk_...", token[0]))
    shown = blocks(WEB_PAGE, "html")[0].replace("<digest>", page_script().digest).replace("wk_...", token[0])
    assert printed.strip() == shown.strip().replace("sha384-...", page_script().integrity)


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    sources, mapping = blocks(WEBHOOKS, "yaml")
    (tmp_path / "webhooks.yaml").write_text(sources)
    (source,) = read_sources(tmp_path / "webhooks.yaml", {"SHOPIFY_SECRET": "a secret of sixteen"})
    assert source.path_id
    SignedJsonMapping(yaml.safe_load(mapping), "till.yaml")


@pytest.mark.skipif(shutil.which("node") is None, reason="node checks the syntax")
def test_the_scripts_of_the_pages_parse(tmp_path: Path) -> None:
    scripts = blocks(WEBHOOKS, "js") + blocks(WEB_PAGE, "js")
    scripts += re.findall(r"<script>(.*?)</script>", "".join(blocks(WEB_PAGE, "html")))
    assert len(scripts) == 5
    (tmp_path / "all.js").write_text("\n;".join(scripts))
    subprocess.run(["node", "--check", tmp_path / "all.js"], check=True, timeout=240)


def test_the_page_names_options_and_settings_that_exist() -> None:
    options = {name for kind in _OPTIONS.values() for name in kind.__dataclass_fields__}
    named = set(re.findall(r"`(\w+): (?:[\w./]+|\.\.\.)`", WEBHOOKS)) & (
        options | {"purchase_topic", "measure", "basis"}
    )
    assert {"purchase_topic", "refunds", "disputes", "basis", "measure", "taxes_included", "restate_on_update"} <= named
    assert CollectorConfig().script_name in WEB_PAGE
