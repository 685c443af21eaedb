"""Which trouble from outside becomes which class of the loop."""

from __future__ import annotations

import pytest

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.errors import AttributaryError, Fatal, Fenced, Retry
from attributary.consumers.store.connection import StoreUnavailable
from attributary.consumers.store.migrate import MigrationError
from attributary.consumers.store.models.model_states import ModelStateError
from attributary.consumers.store.offsets import CommitsLostError
from attributary.schemas.codec import RegistryUnavailableError


@pytest.mark.parametrize(
    ("outside", "becomes", "code"),
    [
        (StoreUnavailable("away"), Retry, 69),
        (RegistryUnavailableError("away"), Retry, 69),
        (CommitsLostError("fell back"), Fenced, 70),
        (MigrationError("older"), Fatal, 78),
        (ModelStateError("lost"), Fatal, 70),
    ],
)
def test_trouble_from_outside(outside: Exception, becomes: type[AttributaryError], code: int) -> None:
    with pytest.raises(becomes, match=str(outside)) as caught, map_errors():
        raise outside
    assert caught.value.exit_code == code


def test_what_nobody_expects_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), map_errors():
        raise ZeroDivisionError
