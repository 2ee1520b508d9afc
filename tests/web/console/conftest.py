"""What tests of the staff pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import time_machine

from tests.harness.factories import NOON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.runtime import Runtime


@pytest.fixture
def runtime(make_runtime: Callable[..., Runtime]) -> Runtime:
    """A runtime whose own address nobody listens on, nor the platform's."""
    return make_runtime(bind=("127.0.0.1", 1), platform_url="http://127.0.0.1:1/smsApi")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Noon in Shanghai, until a test moves it."""
    with time_machine.travel(NOON, tick=False) as travelled:
        yield travelled
