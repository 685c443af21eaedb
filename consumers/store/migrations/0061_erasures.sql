-- Erasure of people (docs/decisions/0030): requests, the ledger that every reader of the log asks, the revenue that stays,
-- and the results that are taken back.

CREATE TABLE attribution_erasure_requests (
    tenant_id      text COLLATE "C" NOT NULL,
    request_id     text COLLATE "C" NOT NULL,
    kind           text             NOT NULL
        CONSTRAINT attribution_erasure_requests_kind_known
        CHECK (kind IN ('user', 'anonymous', 'order', 'conversion', 'email')),
    mode           text             NOT NULL
        CONSTRAINT attribution_erasure_requests_mode_known
        CHECK (mode IN ('delete', 'delete-and-suppress', 'suppress', 'unsuppress')),
    identifier     text,
    id_hash        bytea,
    received_at_us bigint           NOT NULL,
    cutoff_us      bigint           NOT NULL,
    derived_from   text COLLATE "C",
    state          text             NOT NULL
        CONSTRAINT attribution_erasure_requests_state_known
        CHECK (state IN ('pending', 'in_progress', 'completed', 'cancelled')),
    removed        jsonb            NOT NULL DEFAULT '{}',
    executed_at    timestamptz,
    completed_at   timestamptz,
    created_at     timestamptz      NOT NULL DEFAULT now(),
    updated_at     timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX attribution_erasure_requests_open ON attribution_erasure_requests (received_at_us) WHERE state IN ('pending', 'in_progress');
COMMENT ON TABLE attribution_erasure_requests IS 'Requests to erase people, as the stitcher read them from their topic; the sweeper carries them out.';
COMMENT ON COLUMN attribution_erasure_requests.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_erasure_requests.request_id IS 'Id of the request, unique in the tenant. Of a derived one: kind, hash and cut-off.';
COMMENT ON COLUMN attribution_erasure_requests.kind IS 'What the identifier is: user, anonymous, order, conversion or email (SHA-256 of the normalised address).';
COMMENT ON COLUMN attribution_erasure_requests.mode IS 'delete, delete-and-suppress, suppress or unsuppress.';
COMMENT ON COLUMN attribution_erasure_requests.identifier IS 'The identifier itself; null as soon as the request is carried out.';
COMMENT ON COLUMN attribution_erasure_requests.id_hash IS 'Its keyed hash, as in attribution_erasures; null until the request is carried out.';
COMMENT ON COLUMN attribution_erasure_requests.received_at_us IS 'When it is its turn, microseconds UTC: log-append time of the record that it came with.';
COMMENT ON COLUMN attribution_erasure_requests.cutoff_us IS 'Events that happened or arrived up to this time are erased, microseconds UTC: the log-append time of the request.';
COMMENT ON COLUMN attribution_erasure_requests.derived_from IS 'An event that was dropped named this identifier beside an erased one. Null: a request of its own.';
COMMENT ON COLUMN attribution_erasure_requests.state IS 'pending: older input is still unread. in_progress: rows are gone, results are being taken back. completed. cancelled.';
COMMENT ON COLUMN attribution_erasure_requests.removed IS 'How many rows were removed, by table.';
COMMENT ON COLUMN attribution_erasure_requests.executed_at IS 'When the rows were removed.';
COMMENT ON COLUMN attribution_erasure_requests.completed_at IS 'When the last result was taken back.';
COMMENT ON COLUMN attribution_erasure_requests.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_erasure_requests.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_erasures (
    tenant_id       text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL
        CONSTRAINT attribution_erasures_kind_known
        CHECK (kind IN ('user', 'anonymous', 'order', 'conversion', 'email')),
    id_hash         bytea            NOT NULL,
    key_id          text             NOT NULL,
    cutoffs_us      bigint[]         NOT NULL,
    suppressed      int8multirange   NOT NULL DEFAULT '{}',
    request_id      text             NOT NULL,
    published_at    timestamptz,
    created_at      timestamptz      NOT NULL DEFAULT now(),
    updated_at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, id_hash)
);
CREATE INDEX attribution_erasures_unpublished ON attribution_erasures (tenant_id, kind, id_hash) WHERE published_at IS NULL;
COMMENT ON TABLE attribution_erasures IS 'The ledger of erasures: identifiers that no reader of the log may bring back, by keyed hash.';
COMMENT ON COLUMN attribution_erasures.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_erasures.kind IS 'What the identifier is: user, anonymous, order, conversion or email.';
COMMENT ON COLUMN attribution_erasures.id_hash IS 'HMAC-SHA-256 of tenant, kind and identifier with ATTRIBUTION_ERASURE_KEY.';
COMMENT ON COLUMN attribution_erasures.key_id IS 'Which key: the first bytes of its own HMAC, in hexadecimal.';
COMMENT ON COLUMN attribution_erasures.cutoffs_us IS 'Of each erasure, rising: events that happened or arrived up to one are dropped, microseconds UTC.';
COMMENT ON COLUMN attribution_erasures.suppressed IS 'Events that arrived in these ranges of log-append time are dropped, microseconds UTC.';
COMMENT ON COLUMN attribution_erasures.request_id IS 'The request that set it last.';
COMMENT ON COLUMN attribution_erasures.published_at IS 'When the row was written to attribution.erasures.v1; null: it is yet to be.';
COMMENT ON COLUMN attribution_erasures.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_erasures.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_erased_amounts (
    tenant_id        text COLLATE "C" NOT NULL,
    event_hash       bytea            NOT NULL,
    conversion_hash  bytea            NOT NULL,
    kind             text             NOT NULL,
    conversion_type  text             NOT NULL,
    occurred_at_us   bigint           NOT NULL,
    value_micros     bigint           NOT NULL,
    currency         text             NOT NULL,
    received_at_us   bigint           NOT NULL,
    created_at       timestamptz      NOT NULL DEFAULT now(),
    updated_at       timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_hash)
);
CREATE INDEX attribution_erased_amounts_conversion ON attribution_erased_amounts (tenant_id, conversion_hash);
CREATE INDEX attribution_erased_amounts_time ON attribution_erased_amounts USING brin (received_at_us);
COMMENT ON TABLE attribution_erased_amounts IS 'Amounts of erased conversions while refunds may still change them: no id, no person, no touchpoint. What they come to stands in attribution_removed_totals.';
COMMENT ON COLUMN attribution_erased_amounts.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_erased_amounts.event_hash IS 'Keyed hash of the event id: a replay is not booked twice.';
COMMENT ON COLUMN attribution_erased_amounts.conversion_hash IS 'Keyed hash of the conversion id: a refund finds its conversion.';
COMMENT ON COLUMN attribution_erased_amounts.kind IS 'conversion, refund, cancellation or restatement.';
COMMENT ON COLUMN attribution_erased_amounts.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN attribution_erased_amounts.occurred_at_us IS 'Event time, microseconds UTC: decides which of two corrections is the later one.';
COMMENT ON COLUMN attribution_erased_amounts.value_micros IS 'Value in micros of the currency, as the event stated it.';
COMMENT ON COLUMN attribution_erased_amounts.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_erased_amounts.received_at_us IS 'Log-append time, microseconds UTC: kept ATTRIBUTION_ERASED_AMOUNT_DAYS longer.';
COMMENT ON COLUMN attribution_erased_amounts.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_erased_amounts.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_tombstones (
    tenant_id     text COLLATE "C" NOT NULL,
    conversion_id text COLLATE "C" NOT NULL,
    version       bigint           NOT NULL,
    request_id    text COLLATE "C" NOT NULL,
    published_us  bigint           NOT NULL,
    asked_at      timestamptz      NOT NULL DEFAULT now(),
    observed_at   timestamptz,
    repeat_after  timestamptz,
    created_at    timestamptz      NOT NULL DEFAULT now(),
    updated_at    timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversion_id)
);
CREATE INDEX attribution_tombstones_due ON attribution_tombstones (asked_at) WHERE observed_at IS NULL;
CREATE INDEX attribution_tombstones_request ON attribution_tombstones (tenant_id, request_id);
COMMENT ON TABLE attribution_tombstones IS 'Results that are taken back: a null value under their key. A row goes when the tombstone was repeated after compaction was due.';
COMMENT ON COLUMN attribution_tombstones.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_tombstones.conversion_id IS 'The key in attribution.results.v1.';
COMMENT ON COLUMN attribution_tombstones.version IS 'Version of the tombstone: above all versions before it.';
COMMENT ON COLUMN attribution_tombstones.request_id IS 'The request that it is for.';
COMMENT ON COLUMN attribution_tombstones.published_us IS 'Log-append time of the request, microseconds UTC.';
COMMENT ON COLUMN attribution_tombstones.asked_at IS 'When the attributor was last asked to write it.';
COMMENT ON COLUMN attribution_tombstones.observed_at IS 'When the auditor saw it in the topic; null: not yet.';
COMMENT ON COLUMN attribution_tombstones.repeat_after IS 'When it is written once more, so that a quiet partition rolls and is compacted; null: the row may go as soon as it is observed.';
COMMENT ON COLUMN attribution_tombstones.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_tombstones.updated_at IS 'When it was last changed.';
