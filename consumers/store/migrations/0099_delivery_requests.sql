-- Requests that a destination has received and judges later: one row a request, asked about until the verdict is final.

CREATE TABLE attribution_delivery_requests (
    tenant_id   text COLLATE "C" NOT NULL,
    destination text COLLATE "C" NOT NULL,
    request_id  text COLLATE "C" NOT NULL,
    verdict     text             NOT NULL DEFAULT 'pending'
        CONSTRAINT attribution_delivery_requests_verdict_known
        CHECK (verdict IN ('pending', 'accepted', 'partly', 'refused', 'unknown')),
    events      integer          NOT NULL,
    refused     jsonb            NOT NULL DEFAULT '{}',
    warned      jsonb            NOT NULL DEFAULT '{}',
    asked       integer          NOT NULL DEFAULT 0,
    received_at timestamptz      NOT NULL,
    ask_at      timestamptz      NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz      NOT NULL DEFAULT now(),
    CONSTRAINT attribution_delivery_requests_pkey PRIMARY KEY (tenant_id, destination, request_id)
);

CREATE INDEX attribution_delivery_requests_pending
    ON attribution_delivery_requests (destination, ask_at)
    WHERE verdict = 'pending';

COMMENT ON TABLE attribution_delivery_requests IS
    'Requests that a destination has received, with its verdict, which comes later. No event and no person.';
COMMENT ON COLUMN attribution_delivery_requests.tenant_id IS 'The tenant that owns the events.';
COMMENT ON COLUMN attribution_delivery_requests.destination IS 'As in attribution_deliveries: with the account when a tenant has several.';
COMMENT ON COLUMN attribution_delivery_requests.request_id IS 'The destination''s id of the request; trace_id of its deliveries.';
COMMENT ON COLUMN attribution_delivery_requests.verdict IS
    'pending; accepted: all events; partly: some; refused: none; unknown: the destination never told.';
COMMENT ON COLUMN attribution_delivery_requests.events IS 'How many events the request had.';
COMMENT ON COLUMN attribution_delivery_requests.refused IS 'How many were refused, by the destination''s reason; it does not say which.';
COMMENT ON COLUMN attribution_delivery_requests.warned IS 'How many it warns of, by reason.';
COMMENT ON COLUMN attribution_delivery_requests.asked IS 'How often it was asked.';
COMMENT ON COLUMN attribution_delivery_requests.received_at IS 'When the destination received it.';
COMMENT ON COLUMN attribution_delivery_requests.ask_at IS 'When it is asked next.';
COMMENT ON COLUMN attribution_delivery_requests.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_delivery_requests.updated_at IS 'When it was last changed.';
