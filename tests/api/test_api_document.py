"""The OpenAPI document against the running server: whatever it allows is answered as it says, never with 500."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from attributary import __version__
from attributary.consumers.api.endpoints import openapi

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

DOCUMENT = openapi(__version__)
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
SETTINGS = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def one_answer(case: Case[Any], api: Api) -> None:
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as of_documents

    case.call_and_validate(
        base_url=api.url,
        headers={"Authorization": f"Bearer {api.tokens['acme']}"},
        checks=[
            checks.not_a_server_error,
            of_documents.status_code_conformance,
            of_documents.content_type_conformance,
            of_documents.response_schema_conformance,
            of_documents.negative_data_rejection,
        ],
        timeout=240,
    )


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_names(method: str, path: str, api: Api) -> None:
    # Schemathesis takes half a second to import and two to think of examples: not in each process that collects.
    import schemathesis
    from schemathesis.core.result import Ok
    from schemathesis.pytest.lazy import get_all_tests

    operation = schemathesis.openapi.from_dict(DOCUMENT).include(method=method.upper(), path=path)
    (built,) = get_all_tests(schema=operation, test_func=one_answer, settings=SETTINGS, given_kwargs=None)
    assert isinstance(built, Ok), built
    _, answers = built.ok()
    answers(api=api)
