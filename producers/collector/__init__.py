"""The HTTP collector: events from pages, servers and shops become acknowledged messages in the log (extra `collect`).

::

    protocol   one connection: deadlines for headers and bodies, a cap on header bytes (uvicorn has neither)
    app        routes, CORS, security headers; `create_app` mounts further routes (webhooks, page script)
    body       bytes of a request, counted while they arrive and while they are inflated
    mapping    JSON records to records of the schemas
    intake     records to per-record answers: validate all, send, wait, else spool
    bridge     one thread between librdkafka and the event loop
    spool      bounded, append-only files for what the log does not take now

Invariant: the collector answers "accepted" for a record only after the log's acknowledgement, "spooled" only after
fsync. The same request gives the same event ids and the same bytes, however often it is sent. Nothing here imports
Postgres or a consumer; the tenant comes from the key (or a webhook's address), never from a body.
"""

from __future__ import annotations
