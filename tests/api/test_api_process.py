"""`attributary serve` as a process, and its OpenAPI document as it is published."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from typer.testing import CliRunner

from attributary.cli.collect import bound_socket
from attributary.cli.main import app
from attributary.local.ports import LOOPBACK
from attributary.local.process import spawn
from attributary.local.stages import command_line
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from typer.testing import Result

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "read-api.json"
BASE = "/api/v1/attribution"
_INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "100", **variables})


def test_the_published_document_is_what_the_server_takes_and_answers() -> None:
    said = run("serve", "--openapi")
    assert said.exit_code == 0
    assert json.loads(DOCUMENT.read_text()) == json.loads(said.stdout), (
        "not up to date: attributary serve --openapi > docs/reference/read-api.json"
    )


def test_every_reference_of_the_document_leads_somewhere() -> None:
    text = DOCUMENT.read_text()
    document = json.loads(text)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert named
    assert named <= set(document["components"]["schemas"])
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_body_is_not_held_back_until_the_client_acknowledges_the_headers(address: str) -> None:
    """Else every answer after the first on a connection takes 40 ms, the client's delayed acknowledgement."""

    async def is_sent_at_once() -> int:
        accepted: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

        class Seen(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set_result(transport.get_extra_info("socket"))

        listener = bound_socket(address, 0, "SERVE_PORT")
        async with await asyncio.get_running_loop().create_server(Seen, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            option = (await accepted).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()
        return option

    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no address {address}")
    assert asyncio.run(is_sent_at_once()) != 0


@pytest.mark.postgres
def test_the_process_serves_until_sigterm(database: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    made = run(
        "collect", "keys", "new", "--kind", "sk", "--tenant", "acme", "--scope", "read", COLLECT_KEYS_FILE=str(keys)
    )
    assert made.exit_code == 0, made.output
    token = re.search(r"sk_[\w-]+", made.output)[0]  # type: ignore[index]
    log = tmp_path / "serve.log"
    variables = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "DATABASE_URL": database,
        "SERVE_KEYS_FILE": str(keys),
        "SERVE_PORT": "0",
        "METRICS_PORT": "0",
        "METRICS_HOST": LOOPBACK,
    }
    child = spawn(command_line("serve"), name="serve", log=log, env=variables)
    try:
        wait_until(lambda: "listening on port" in log.read_text(), "it does not listen")
        ports = dict(re.findall(r'"(?:port|event)": ?"?(listening on port )?(\d+)', log.read_text()))
        url = f"http://{LOOPBACK}:{ports['listening on port ']}{BASE}"
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.get(f"{url}/results", headers=headers, trust_env=False, timeout=120)
        assert (answer.status_code, answer.json()) == (200, {"results": [], "next": None})
        job = httpx.post(f"{url}/train/markov", json={}, headers=headers, trust_env=False, timeout=120)
        assert job.status_code == 403  # its scope is read alone
        metrics = httpx.get(f"http://{LOOPBACK}:{ports['']}/metrics", trust_env=False, timeout=120).text
        assert 'attribution_api_requests_total{endpoint="results",status="200"} 1.0' in metrics
        child.terminate()
        assert child.wait(120) == 0, log.read_text()
    finally:
        child.kill()
    assert token not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"DATABASE_URL": "postgresql://x/x", "SERVE_KEYS_FILE": ""}, "SERVE_KEYS_FILE"),
        ({"DATABASE_URL": "postgresql://x/x", "SERVE_KEYS_FILE": "/nowhere"}, "SERVE_KEYS_FILE"),
        ({"DATABASE_URL": "", "SERVE_KEYS_FILE": "/nowhere"}, "DATABASE_URL"),
        ({"DATABASE_URL": "hello", "SERVE_KEYS_FILE": "/nowhere"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://x/x", "SERVE_KEYS_FILE": "/nowhere", "SERVE_PORT": "x"}, "SERVE_PORT"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_its_name(variables: dict[str, str], named: str) -> None:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    said = subprocess.run(
        command_line("serve"), env=inherited | variables, capture_output=True, text=True, check=False, timeout=240
    )
    assert said.returncode == 78
    assert named in said.stderr.splitlines()[-1]
