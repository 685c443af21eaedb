"""A web service that publishes: landings become touchpoints, orders become conversions.

    . .attributary/up/env      # or export KAFKA_BOOTSTRAP_SERVERS=host:port
    uvicorn --app-dir examples publish_fastapi:app

One producer for the life of the process: it batches, and it is safe to share between requests. Leaving the `with`
block when the server stops waits until every record is acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from attributary import (
    AttributaryProducer,
    BufferFull,
    Conversion,
    InvalidRecord,
    ProducerConfig,
    UserData,
    parse_landing,
    touchpoint_from_landing,
)

CONFIG = ProducerConfig(bootstrap=os.environ["KAFKA_BOOTSTRAP_SERVERS"], source="shop", default_tenant="acme")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with AttributaryProducer(CONFIG) as producer:
        app.state.producer = producer
        yield


app = FastAPI(title="Shop", lifespan=lifespan)


def publish(request: Request, record: Any) -> dict[str, str]:
    """Publish, and answer 422 for a broken rule, 503 while Kafka takes no more."""
    try:
        request.app.state.producer.publish(record)
    except InvalidRecord as error:  # its text holds field and rule, no value
        raise HTTPException(422, detail=str(error)) from None
    except BufferFull as error:
        raise HTTPException(503, detail=str(error)) from None
    return {"event_id": record.event_id}


# Plain functions run in FastAPI's thread pool, so a full queue never blocks the event loop.
@app.post("/landings", status_code=202)
def landing(request: Request, page: dict[str, str]) -> dict[str, str]:
    """The browser tells on which URL it arrived, and its own id."""
    agent = request.headers.get("user-agent")
    seen = parse_landing(page["url"], page.get("referrer"), agent, own_domains=["example.com"])
    if seen.is_internal:
        return {"event_id": ""}  # the visit goes on: no new touchpoint
    return publish(
        request, touchpoint_from_landing(seen, occurred_at=datetime.now(UTC), anonymous_id=page["anonymous_id"])
    )


@app.post("/orders", status_code=202)
def order(request: Request, placed: dict[str, str]) -> dict[str, str]:
    """The shop tells that an order was placed; the order number makes a repeated request harmless."""
    return publish(
        request,
        Conversion.purchase(
            event_id=f"order-{placed['number']}",
            order_id=placed["number"],
            anonymous_id=placed["anonymous_id"],
            user_id=placed.get("user_id"),
            value=Decimal(placed["total"]),
            currency=placed["currency"],
            occurred_at=datetime.now(UTC),
            user_data=UserData(email=placed["email"]) if "email" in placed else None,  # hashed before it leaves
        ),
    )
