"""The front door: ``from attributary import ...`` gives these names, typed, and loads only what they need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import attributary

ROOT = Path(__file__).resolve().parents[2]
# Adding a name is a feature, removing or renaming one breaks services: say it in CHANGELOG.md.
PUBLIC = {
    "__version__",
    # publish
    "AttributaryProducer", "ProducerConfig", "Touchpoint", "Conversion", "IdentityLink", "Item", "UserData",
    "Spend", "SpendLine",
    "MemoryTransport", "parse_landing", "touchpoint_from_landing",
    # subscribe
    "Codec", "expand_result", "roll_up_result",
    # send to ad platforms
    "MetaConversionsClient", "GA4Client", "Receipt",
    # analyse
    "analyze",
    # errors
    "ProducerError", "InvalidRecord", "DeliveryFailed", "BufferFull", "FlushTimeout", "EncodeError", "DecodeError",
    "RegistryUnavailableError", "TableError",
}  # fmt: skip
HEAVY = {"psycopg", "psycopg_pool", "numpy", "httpx", "pydantic_settings", "typer", "rich", "phonenumbers"}


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()} | {
        name for name in done.stdout.split() if name.startswith("attributary")
    }


def test_the_public_names_are_frozen() -> None:
    assert set(attributary.__all__) == PUBLIC
    assert list(attributary.__all__) == sorted(attributary.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(attributary, name) is not None
    assert name in dir(attributary)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'attributary' has no attribute 'Producer'"):
        attributary.Producer  # noqa: B018  # asked for its error


def test_star_import_gives_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from attributary import *", names)  # noqa: S102  # what a notebook does
    assert set(names) - {"__builtins__"} == PUBLIC


def test_type_checkers_see_the_object_that_runs() -> None:
    """The imports under TYPE_CHECKING and the table that is used at run time name the same modules."""
    tree = ast.parse((ROOT / "src" / "attributary" / "__init__.py").read_text("utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed.keys() == PUBLIC - {"__version__"}
    for name, module in typed.items():
        assert getattr(attributary, name) is getattr(sys.modules[str(module)], name)


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = {name for name in loaded_by("import attributary") if name.startswith("attributary")}
    assert loaded == {"attributary"}


@pytest.mark.parametrize(
    ("names", "needs"),
    [
        ("AttributaryProducer, ProducerConfig, Touchpoint, Conversion, IdentityLink", {"confluent_kafka"}),
        ("parse_landing, touchpoint_from_landing", {"tldextract"}),
        ("Codec, DecodeError", {"fastavro"}),
        ("InvalidRecord, DeliveryFailed, MemoryTransport", set()),
    ],
)
def test_a_service_loads_neither_numpy_nor_the_database_driver(names: str, needs: set[str]) -> None:
    loaded = loaded_by(f"from attributary import {names}")
    assert needs <= loaded
    assert loaded & HEAVY == set()
    assert not any(name.startswith("attributary.consumers") for name in loaded)


def test_the_clients_of_destinations_load_no_database_driver() -> None:
    assert loaded_by("from attributary import GA4Client, MetaConversionsClient") & {"psycopg", "numpy"} == set()


def test_analyze_loads_numpy_and_no_kafka() -> None:
    loaded = loaded_by("from attributary import analyze")
    assert "numpy" in loaded
    assert loaded & {"confluent_kafka", "psycopg", "httpx"} == set()


def test_the_version_is_the_one_of_pyproject() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert declared is not None
    assert attributary.__version__ == declared[1]


def test_errors_have_the_classes_that_callers_catch() -> None:
    assert issubclass(attributary.InvalidRecord, attributary.ProducerError)
    assert issubclass(attributary.InvalidRecord, ValueError)
    for error in (attributary.DeliveryFailed, attributary.BufferFull, attributary.FlushTimeout):
        assert issubclass(error, attributary.ProducerError)
    with pytest.raises(attributary.DecodeError):
        attributary.Codec().decode("result", b"nonsense")
    with pytest.raises(attributary.TableError):
        attributary.analyze({"path": ["a > b"], "total_conversions": [-1]})


@pytest.mark.parametrize(
    ("stage", "left_out"),
    [
        ("auditor", {"numpy", "attributary.attribution_core.models.model_set"}),
        ("stitcher", {"attributary.attribution_core.models.model_set"}),
    ],
)
def test_a_stage_that_credits_nothing_starts_without_the_models(stage: str, left_out: set[str]) -> None:
    assert loaded_by(f"import attributary.consumers.{stage}.process") & left_out == set()
