"""Metrics of the read API."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter, histogram

requests = counter("attribution_api_requests", "Requests of the read API by status.", "endpoint", "status")
request_seconds = histogram("attribution_api_request_seconds", "Time from headers to answer.", "endpoint")
