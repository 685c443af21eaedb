"""Events that pass every rule and are as hard to bear as rules allow: valid, but cruel.

Each kind is a function of a seeded source of chance and a size; its events are of one person or tenant that means no
good, or of a kiosk, a test robot, a shared account. ``cruel_events`` mixes all kinds, in an order that is no help.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attributary.schemas.limits import ID_CHARACTERS, MOST_VALUE_MICROS, WORD_CHARACTERS
from tests.factories.samples import link, sale, touch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.factories.samples import SampleEvent

TENANT = "cruel"
WIDE = "\N{GRINNING FACE}"  # four bytes in UTF-8
_CURRENCIES = ("EUR", "JPY", "KWD", "XXX")


def kiosk(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """One device of all customers: touches and conversions of it, touches of earlier times last."""
    for number in range(size // 2):
        yield sale(f"kiosk-sale-{number}", 30 + number / 100, who="a:kiosk", tenant_id=TENANT)
    for number in range(size):
        yield touch(f"kiosk-{number}", chance.uniform(0, 29), who="a:kiosk", tenant_id=TENANT)


def crowd(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """One account that everybody signs in to: a user with many devices."""
    for number in range(size):
        yield touch(f"crowd-{number}", chance.uniform(0, 20), who=f"a:device-{number}", tenant_id=TENANT)
        yield link(f"crowd-link-{number}", f"device-{number}", "everybody", chance.uniform(0, 20), TENANT)
        if number % 10 == 0:
            yield sale(f"crowd-sale-{number}", 21, who="u:everybody", tenant_id=TENANT)


def passed_around(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """One device that many users sign in on; the earliest link, which decides, comes last."""
    yield touch("passed-touch", 0, who="a:passed", tenant_id=TENANT)
    yield sale("passed-sale", 40, who="a:passed", tenant_id=TENANT)
    for number in range(size // 4):
        yield link(f"passed-{number}", "passed", f"user-{number}", 39 - number / size + chance.random() / 1e3, TENANT)


def longest_names(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """Every text as long as it may be, in characters of four bytes; about as many touches as one result can hold."""
    del chance
    for buyer in range(max(1, size // 50)):
        who = f"a:{WIDE * (ID_CHARACTERS - 4)}{buyer:04}"
        for number in range(17, 22):
            yield touch(
                f"long-{buyer:04}-{number:03}".ljust(ID_CHARACTERS, WIDE), number / 4, who=who, tenant_id=TENANT,
                channel=f"{number:03}".ljust(WORD_CHARACTERS, WIDE), campaign_name=WIDE * 500, ad_name=WIDE * 500,
                properties={f"{key:02}": WIDE * 500 for key in range(10)},
            )  # fmt: skip
        yield sale(f"long-sale-{buyer:04}".ljust(ID_CHARACTERS, WIDE), 9, who=who, tenant_id=TENANT)


def many_channels(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """Each touch of a person names a channel of its own."""
    del chance
    for number in range(size):
        yield touch(f"channel-{number}", number / 60, who="a:channels", channel=f"c{number}", tenant_id=TENANT)
    yield sale("channel-sale", size / 60 + 1, who="a:channels", tenant_id=TENANT)


def corrections(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """A purchase that is corrected again and again, before it is there and after, to the ends of what money may be."""
    events: list[SampleEvent] = [sale("corrected", 10, who="a:corrected", value=MOST_VALUE_MICROS, tenant_id=TENANT)]
    for number in range(size // 4):
        kind = chance.choice(("refund", "refund", "restatement", "cancellation"))
        value = chance.choice((10_000, 20_000, MOST_VALUE_MICROS)) if kind != "cancellation" else 0
        events.append(
            sale(f"correction-{number}", 10 + chance.random(), who="a:corrected", kind=kind, value=value,
                 conversion_id="corrected", tenant_id=TENANT)
        )  # fmt: skip
    chance.shuffle(events)
    yield from events


def contents(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """One event id for many contents, of many people."""
    for number in range(size // 4):
        yield touch(f"content-{number % 3}", chance.uniform(0, 5), who=f"a:content-{number}", tenant_id=TENANT)
        yield sale(
            f"content-sale-{number % 3}", 6, who=f"a:content-{number}", value=number * 10_000,
            conversion_id=f"content-{chance.randrange(3)}", tenant_id=TENANT,
        )  # fmt: skip


def edges_of_time(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """Touches at one instant, at both ends of the lookback window, and long before it."""
    del chance
    for number in range(size // 10):
        who = f"a:edge-{number}"
        moments = (0, 0, 0, -24 * 30, -24 * 30 - 1e-9, -24 * 90, -24 * 3_650, 1e-9, 1)
        for place, hours in enumerate(moments):
            yield touch(f"edge-{number}-{place}", hours, who=who, tenant_id=TENANT)
        yield sale(f"edge-sale-{number}", 0, who=who, tenant_id=TENANT)


def currencies(chance: random.Random, size: int) -> Iterator[SampleEvent]:
    """One conversion id in several currencies and of several people; values of one minor unit."""
    for number in range(size // 4):
        yield sale(
            f"currency-{number}", chance.uniform(0, 50), who=f"a:currency-{number % 5}", tenant_id=TENANT,
            currency=chance.choice(_CURRENCIES[:3]), value=1_000_000, conversion_id=f"currency-{number % 7}",
        )  # fmt: skip


KINDS: Sequence[Callable[[random.Random, int], Iterator[SampleEvent]]] = (
    kiosk, crowd, passed_around, longest_names, many_channels, corrections, contents, edges_of_time, currencies,
)  # fmt: skip


def cruel_events(seed: int, size: int) -> list[SampleEvent]:
    """Return events of all kinds; those of a kind keep their order where that is its point, kinds are mixed.

    Args:
        seed: the same seed gives the same events.
        size: touches of the largest kind.
    """
    chance = random.Random(seed)
    queues = [list(kind(chance, size))[::-1] for kind in KINDS]
    mixed: list[SampleEvent] = []
    while queues:
        queue = chance.choice(queues)
        run = chance.randrange(1, 40)
        mixed += queue[-run:][::-1]
        del queue[-run:]
        queues = [queue for queue in queues if queue]
    return mixed


def quiet_events(number: int) -> list[SampleEvent]:
    """Return an ordinary journey of an ordinary tenant."""
    return [
        touch(f"quiet-{number}", number, who=f"a:quiet-{number}", tenant_id="quiet"),
        sale(f"quiet-sale-{number}", number + 1, who=f"a:quiet-{number}", tenant_id="quiet"),
    ]
