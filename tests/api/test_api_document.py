"""The OpenAPI document against the running server: whatever it allows is answered as it says, never with 500."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from attributary import __version__
from attributary.consumers.api.endpoints import openapi

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
document = schemathesis.openapi.from_dict(openapi(__version__))


@document.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_names(case: Case[Any], api: Api) -> None:
    case.call_and_validate(
        base_url=api.url, headers={"Authorization": f"Bearer {api.tokens['acme']}"}, checks=CHECKS, timeout=20
    )
