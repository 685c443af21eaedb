"""The peer of the collector's bench: the handler that a team would write first (FastAPI, pydantic, confluent-kafka).

It answers after the broker's acknowledgement, as the collector does, and does nothing else that the collector does: no
keys, no rules beyond types, no hashing, no channels read from landing pages, no limits, no spool.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Producer
from fastapi import FastAPI
from pydantic import BaseModel

from attributary.schemas.topics import TOUCHPOINTS


class Touch(BaseModel):
    """What the generator sends."""

    event_id: str
    anonymous_id: str
    occurred_at: str
    channel: str
    platform: str
    campaign_id: str | None = None
    landing_url: str | None = None
    referrer: str | None = None


producer = Producer(
    {
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        "enable.idempotence": True,
        "linger.ms": 5,
        "log_level": 0,
    }
)
stopping = threading.Event()


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    def poll() -> None:
        while not stopping.is_set():
            producer.poll(0.1)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    yield
    stopping.set()
    thread.join()


app = FastAPI(lifespan=_lifespan)


@app.post("/track")
async def track(touches: Touch | list[Touch]) -> dict[str, Any]:
    """Answer when the broker has all of them."""
    loop = asyncio.get_running_loop()
    listed = touches if isinstance(touches, list) else [touches]
    waiting = []
    for touch in listed:
        future: asyncio.Future[None] = loop.create_future()

        def done(error: object, _message: object, future: asyncio.Future[None] = future) -> None:
            if error is None:
                loop.call_soon_threadsafe(future.set_result, None)
            else:
                loop.call_soon_threadsafe(future.set_exception, RuntimeError(str(error)))

        producer.produce(TOUCHPOINTS, touch.model_dump_json().encode(), touch.anonymous_id, on_delivery=done)
        waiting.append(future)
    await asyncio.gather(*waiting)
    return {"accepted": len(listed)}
