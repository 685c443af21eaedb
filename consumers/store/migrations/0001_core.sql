-- The tables of the domain, and what stitching needs beside them.
-- Times named *_us are microseconds since 1970-01-01 UTC as bigint: the wire's own form, exact, and never converted on the
-- hot path (docs/decisions/0002). The reporting schema shows them as timestamptz. Every key starts with tenant_id, so
-- that the schema can be distributed by it unchanged.

CREATE TABLE attribution_touchpoints (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    identity_key     text COLLATE "C"        NOT NULL,
    anonymous_id     text,
    occurred_at_us   bigint      NOT NULL,
    received_at_us   bigint      NOT NULL,
    platform         text        NOT NULL,
    channel          text        NOT NULL,
    interaction      text        NOT NULL,
    campaign         text        NOT NULL,
    is_bot           boolean     NOT NULL,
    details          jsonb       NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_touchpoints_journey ON attribution_touchpoints (tenant_id, identity_key, occurred_at_us);
-- Events that name both ids are links, too; needed when one of them is withdrawn.
CREATE INDEX attribution_touchpoints_linking ON attribution_touchpoints (tenant_id, anonymous_id) WHERE anonymous_id IS NOT NULL;
-- Rows arrive roughly in order of time: a block-range index finds old ones for retention at almost no cost in writing.
CREATE INDEX attribution_touchpoints_time ON attribution_touchpoints USING brin (occurred_at_us) WITH (pages_per_range = 32);
COMMENT ON TABLE attribution_touchpoints IS 'Every accepted touchpoint, once per (tenant_id, event_id).';
COMMENT ON COLUMN attribution_touchpoints.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_touchpoints.event_id IS 'The event''s id, unique in the tenant.';
COMMENT ON COLUMN attribution_touchpoints.identity_key IS 'u:<user id> when the event named a user, else a:<anonymous id>. Never changes; see attribution_identities for whose an anonymous id is.';
COMMENT ON COLUMN attribution_touchpoints.anonymous_id IS 'The anonymous id when the event named a user as well: such an event links the two.';
COMMENT ON COLUMN attribution_touchpoints.occurred_at_us IS 'Event time, microseconds UTC.';
COMMENT ON COLUMN attribution_touchpoints.received_at_us IS 'Log-append time in Kafka, microseconds UTC: decides about lateness.';
COMMENT ON COLUMN attribution_touchpoints.platform IS 'Where the contact was bought or made.';
COMMENT ON COLUMN attribution_touchpoints.channel IS 'The marketing channel that gets the credit.';
COMMENT ON COLUMN attribution_touchpoints.interaction IS 'click, impression, view, ...: decides the lookback window.';
COMMENT ON COLUMN attribution_touchpoints.campaign IS 'The campaign''s name, else its id, else empty.';
COMMENT ON COLUMN attribution_touchpoints.is_bot IS 'Sent by a known robot: kept, never credited.';
COMMENT ON COLUMN attribution_touchpoints.details IS 'The other fields of the event that are set: campaign, ad set and ad ids and names, UTM parameters, click ids, URLs, country, device, engagement, properties, consent.';
COMMENT ON COLUMN attribution_touchpoints.content_hash IS '64-bit BLAKE2b of the event''s Avro bytes; of two contents with one event id the smaller hash wins.';
COMMENT ON COLUMN attribution_touchpoints.source_topic IS 'Topic it was read from.';
COMMENT ON COLUMN attribution_touchpoints.source_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_touchpoints.source_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_touchpoints.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_touchpoints.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_conversion_events (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    conversion_id    text COLLATE "C"        NOT NULL,
    kind             text        NOT NULL,
    conversion_type  text        NOT NULL,
    identity_key     text COLLATE "C"        NOT NULL,
    anonymous_id     text,
    occurred_at_us   bigint      NOT NULL,
    received_at_us   bigint      NOT NULL,
    value_micros     bigint      NOT NULL,
    currency         text        NOT NULL,
    order_id         text,
    details          jsonb       NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_conversion_events_conversion ON attribution_conversion_events (tenant_id, conversion_id);
CREATE INDEX attribution_conversion_events_linking ON attribution_conversion_events (tenant_id, anonymous_id) WHERE anonymous_id IS NOT NULL;
CREATE INDEX attribution_conversion_events_time ON attribution_conversion_events USING brin (occurred_at_us);
COMMENT ON TABLE attribution_conversion_events IS 'Every accepted event about a conversion: the conversion itself, refunds, cancellations, restatements.';
COMMENT ON COLUMN attribution_conversion_events.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_conversion_events.event_id IS 'The event''s id, unique in the tenant.';
COMMENT ON COLUMN attribution_conversion_events.conversion_id IS 'The conversion it is about.';
COMMENT ON COLUMN attribution_conversion_events.kind IS 'conversion, refund, cancellation or restatement.';
COMMENT ON COLUMN attribution_conversion_events.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN attribution_conversion_events.identity_key IS 'u:<user id>, else a:<anonymous id>, as the event named it.';
COMMENT ON COLUMN attribution_conversion_events.anonymous_id IS 'The anonymous id when the event named a user as well.';
COMMENT ON COLUMN attribution_conversion_events.occurred_at_us IS 'Event time, microseconds UTC.';
COMMENT ON COLUMN attribution_conversion_events.received_at_us IS 'Log-append time in Kafka, microseconds UTC.';
COMMENT ON COLUMN attribution_conversion_events.value_micros IS 'Value in micros of the currency, as the event stated it.';
COMMENT ON COLUMN attribution_conversion_events.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_conversion_events.order_id IS 'The tenant''s order number.';
COMMENT ON COLUMN attribution_conversion_events.details IS 'Other fields that are set: items, properties, URLs, click ids, consent, opt-out, data processing options. User data for matching, IP address and user agent stay in the topic.';
COMMENT ON COLUMN attribution_conversion_events.content_hash IS '64-bit BLAKE2b of the event''s Avro bytes.';
COMMENT ON COLUMN attribution_conversion_events.source_topic IS 'Topic it was read from.';
COMMENT ON COLUMN attribution_conversion_events.source_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_conversion_events.source_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_conversion_events.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_conversion_events.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_conversions (
    tenant_id           text COLLATE "C"        NOT NULL,
    conversion_id       text COLLATE "C"        NOT NULL,
    conversion_type     text        NOT NULL,
    identity_key        text COLLATE "C"        NOT NULL,
    journey_key         text COLLATE "C"        NOT NULL,
    converted_at_us     bigint      NOT NULL,
    received_at_us      bigint      NOT NULL,
    gross_value_micros  bigint      NOT NULL,
    net_value_micros    bigint      NOT NULL,
    previous_net_micros bigint      NOT NULL,
    currency            text        NOT NULL,
    order_id            text,
    version             bigint      NOT NULL,
    version_reason      text        NOT NULL,
    is_final            boolean     NOT NULL DEFAULT false,
    policy_version      text        NOT NULL,
    model_set           bigint      NOT NULL DEFAULT 0,
    owner_topic         text        NOT NULL,
    owner_partition     integer     NOT NULL,
    owner_offset        bigint      NOT NULL,
    event_published_us  bigint      NOT NULL,
    versioned_at        timestamptz NOT NULL DEFAULT now(),
    observed_version    bigint      NOT NULL DEFAULT 0,
    observed_at         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversion_id)
) WITH (fillfactor = 80);
CREATE INDEX attribution_conversions_journey ON attribution_conversions (tenant_id, journey_key, converted_at_us);
CREATE INDEX attribution_conversions_date ON attribution_conversions (tenant_id, converted_at_us);
CREATE INDEX attribution_conversions_owner ON attribution_conversions (owner_partition, owner_offset);
CREATE INDEX attribution_conversions_unobserved ON attribution_conversions (versioned_at) WHERE observed_version < version;
CREATE INDEX attribution_conversions_open ON attribution_conversions (received_at_us) WHERE NOT is_final;
COMMENT ON TABLE attribution_conversions IS 'The current state of every conversion, and the version whose result is owed.';
COMMENT ON COLUMN attribution_conversions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_conversions.conversion_id IS 'Unique in the tenant.';
COMMENT ON COLUMN attribution_conversions.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN attribution_conversions.identity_key IS 'As the conversion event named the person; empty while only corrections have arrived.';
COMMENT ON COLUMN attribution_conversions.journey_key IS 'The person after identity links; moves when a link moves.';
COMMENT ON COLUMN attribution_conversions.converted_at_us IS 'Event time, microseconds UTC.';
COMMENT ON COLUMN attribution_conversions.received_at_us IS 'Log-append time of the conversion event, microseconds UTC.';
COMMENT ON COLUMN attribution_conversions.gross_value_micros IS 'Value before refunds, micros of the currency.';
COMMENT ON COLUMN attribution_conversions.net_value_micros IS 'Value that is attributed: gross less refunds; zero when cancelled.';
COMMENT ON COLUMN attribution_conversions.previous_net_micros IS 'Net value of the version before; the result''s delta is taken against it.';
COMMENT ON COLUMN attribution_conversions.currency IS 'ISO 4217; XXX: no currency.';
COMMENT ON COLUMN attribution_conversions.order_id IS 'The tenant''s order number.';
COMMENT ON COLUMN attribution_conversions.version IS '1, 2, 3, ...; 0 while only corrections have arrived.';
COMMENT ON COLUMN attribution_conversions.version_reason IS 'Why the newest version exists: new, late_touchpoint, identity, restated, refund, final, model_refit, repair.';
COMMENT ON COLUMN attribution_conversions.is_final IS 'Closed by the lateness policy.';
COMMENT ON COLUMN attribution_conversions.policy_version IS 'The lookback policy pinned by this version.';
COMMENT ON COLUMN attribution_conversions.model_set IS 'The activation of trained models pinned by this version; 0: none.';
COMMENT ON COLUMN attribution_conversions.owner_topic IS 'Owner offset: coordinates of the last new event of the batch that raised the version. Only its replay issues the command again.';
COMMENT ON COLUMN attribution_conversions.owner_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_conversions.owner_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_conversions.event_published_us IS 'Log-append time of that event, microseconds UTC; for the end-to-end latency.';
COMMENT ON COLUMN attribution_conversions.versioned_at IS 'When the version was raised.';
COMMENT ON COLUMN attribution_conversions.observed_version IS 'The newest version whose result the auditor has seen in the results topic.';
COMMENT ON COLUMN attribution_conversions.observed_at IS 'When it saw it.';
COMMENT ON COLUMN attribution_conversions.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_conversions.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_journeys (
    tenant_id      text COLLATE "C"        NOT NULL,
    journey_key    text COLLATE "C"        NOT NULL,
    first_event_us bigint      NOT NULL,
    last_event_us  bigint      NOT NULL,
    last_received_us bigint    NOT NULL,
    closed_at      timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, journey_key)
) WITH (fillfactor = 80);
CREATE INDEX attribution_journeys_open ON attribution_journeys USING brin (last_received_us);
COMMENT ON TABLE attribution_journeys IS 'One row per identity key: the lock that serialises writers of one person, and the bounds of what is known of it.';
COMMENT ON COLUMN attribution_journeys.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_journeys.journey_key IS 'u:<user id> or a:<anonymous id>.';
COMMENT ON COLUMN attribution_journeys.first_event_us IS 'Earliest event time seen, microseconds UTC.';
COMMENT ON COLUMN attribution_journeys.last_event_us IS 'Latest event time seen, microseconds UTC.';
COMMENT ON COLUMN attribution_journeys.last_received_us IS 'Latest log-append time seen, microseconds UTC: inactivity counts from here.';
COMMENT ON COLUMN attribution_journeys.closed_at IS 'When the sweeper closed it for inactivity; null while open. A new event opens it again.';
COMMENT ON COLUMN attribution_journeys.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_journeys.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_identity_links (
    tenant_id        text COLLATE "C"        NOT NULL,
    event_id         text COLLATE "C"        NOT NULL,
    anonymous_id     text COLLATE "C"        NOT NULL,
    user_id          text COLLATE "C"        NOT NULL,
    linked_at_us     bigint      NOT NULL,
    source           text,
    received_at_us   bigint      NOT NULL,
    content_hash     bigint      NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX attribution_identity_links_anonymous ON attribution_identity_links (tenant_id, anonymous_id);
COMMENT ON TABLE attribution_identity_links IS 'Every accepted identity link, immutable.';
COMMENT ON COLUMN attribution_identity_links.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_identity_links.event_id IS 'The event''s id, unique in the tenant.';
COMMENT ON COLUMN attribution_identity_links.anonymous_id IS 'The device or browser.';
COMMENT ON COLUMN attribution_identity_links.user_id IS 'The known person.';
COMMENT ON COLUMN attribution_identity_links.linked_at_us IS 'When they were seen to be one, microseconds UTC.';
COMMENT ON COLUMN attribution_identity_links.source IS 'What linked them.';
COMMENT ON COLUMN attribution_identity_links.received_at_us IS 'Log-append time, microseconds UTC.';
COMMENT ON COLUMN attribution_identity_links.content_hash IS '64-bit BLAKE2b of the event''s Avro bytes.';
COMMENT ON COLUMN attribution_identity_links.source_topic IS 'Topic it was read from.';
COMMENT ON COLUMN attribution_identity_links.source_partition IS 'Its partition.';
COMMENT ON COLUMN attribution_identity_links.source_offset IS 'Its offset.';
COMMENT ON COLUMN attribution_identity_links.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_identity_links.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_identities (
    tenant_id     text COLLATE "C"        NOT NULL,
    anonymous_id  text COLLATE "C"        NOT NULL,
    user_id       text COLLATE "C"        NOT NULL,
    linked_at_us  bigint      NOT NULL,
    link_event_id text COLLATE "C"        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, anonymous_id)
);
CREATE INDEX attribution_identities_user ON attribution_identities (tenant_id, user_id);
COMMENT ON TABLE attribution_identities IS 'Whose an anonymous id is: its link with the smallest (linked_at, event_id), over explicit links and events that named both ids.';
COMMENT ON COLUMN attribution_identities.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_identities.anonymous_id IS 'The device or browser.';
COMMENT ON COLUMN attribution_identities.user_id IS 'Its owner.';
COMMENT ON COLUMN attribution_identities.linked_at_us IS 'Time of the deciding link, microseconds UTC.';
COMMENT ON COLUMN attribution_identities.link_event_id IS 'Event id of the deciding link.';
COMMENT ON COLUMN attribution_identities.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_identities.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_results (
    tenant_id          text COLLATE "C"        NOT NULL,
    conversion_id      text COLLATE "C"        NOT NULL,
    version            bigint      NOT NULL,
    version_reason     text        NOT NULL,
    is_final           boolean     NOT NULL,
    conversion_type    text        NOT NULL,
    converted_at_us    bigint      NOT NULL,
    journey_key        text COLLATE "C"        NOT NULL,
    net_value_micros   bigint      NOT NULL,
    gross_value_micros bigint      NOT NULL,
    delta_micros       bigint      NOT NULL,
    currency           text        NOT NULL,
    policy_version     text        NOT NULL,
    touchpoint_count   integer     NOT NULL,
    touchpoints        jsonb       NOT NULL,
    models             jsonb       NOT NULL,
    insights           jsonb       NOT NULL,
    computed_at_us     bigint      NOT NULL,
    content_hash       text        NOT NULL,
    source_partition   integer     NOT NULL,
    source_offset      bigint      NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversion_id, version)
);
CREATE INDEX attribution_results_date ON attribution_results (tenant_id, converted_at_us);
COMMENT ON TABLE attribution_results IS 'Every version of every result, as it was published on the results topic.';
COMMENT ON COLUMN attribution_results.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_results.conversion_id IS 'The conversion.';
COMMENT ON COLUMN attribution_results.version IS 'Its version; the highest is the truth of today.';
COMMENT ON COLUMN attribution_results.version_reason IS 'Why there is this version.';
COMMENT ON COLUMN attribution_results.is_final IS 'Closed by the lateness policy.';
COMMENT ON COLUMN attribution_results.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_results.converted_at_us IS 'Event time of the conversion, microseconds UTC.';
COMMENT ON COLUMN attribution_results.journey_key IS 'The person.';
COMMENT ON COLUMN attribution_results.net_value_micros IS 'What every model''s credits sum to.';
COMMENT ON COLUMN attribution_results.gross_value_micros IS 'Value before refunds.';
COMMENT ON COLUMN attribution_results.delta_micros IS 'Net value less that of the version before.';
COMMENT ON COLUMN attribution_results.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_results.policy_version IS 'The lookback policy.';
COMMENT ON COLUMN attribution_results.touchpoint_count IS 'Touchpoints in the lookback windows.';
COMMENT ON COLUMN attribution_results.touchpoints IS 'The touchpoints that share it, in order of time: event_id, channel, platform, campaign, occurred_at (microseconds UTC).';
COMMENT ON COLUMN attribution_results.models IS 'Per model: model, model_version, credits and micros in the order of touchpoints, unattributed_micros, confidence, fallback. Roll-ups are sums of these: see reporting.credit.';
COMMENT ON COLUMN attribution_results.insights IS 'What the rules found true of the journey.';
COMMENT ON COLUMN attribution_results.computed_at_us IS 'When the attributor computed it, microseconds UTC.';
COMMENT ON COLUMN attribution_results.content_hash IS 'Hash of the result without computed_at.';
COMMENT ON COLUMN attribution_results.source_partition IS 'Partition of the results topic.';
COMMENT ON COLUMN attribution_results.source_offset IS 'Offset in it.';
COMMENT ON COLUMN attribution_results.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_results.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_model_states (
    tenant_id    text COLLATE "C"        NOT NULL,
    model        text        NOT NULL,
    version      bigint      NOT NULL,
    state        jsonb       NOT NULL,
    metadata     jsonb       NOT NULL,
    trained_at   timestamptz NOT NULL DEFAULT now(),
    is_active    boolean     NOT NULL DEFAULT false,
    activated_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, model, version)
);
CREATE UNIQUE INDEX attribution_model_states_active ON attribution_model_states (tenant_id, model) WHERE is_active;
COMMENT ON TABLE attribution_model_states IS 'Trained models: versioned, the state immutable, at most one active version per tenant and model.';
COMMENT ON COLUMN attribution_model_states.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_model_states.model IS 'markov, shapley, ...';
COMMENT ON COLUMN attribution_model_states.version IS '1, 2, 3, ... per tenant and model.';
COMMENT ON COLUMN attribution_model_states.state IS 'The serialised state with its schema version; never changed.';
COMMENT ON COLUMN attribution_model_states.metadata IS 'Window, sample sizes, code version, diagnostics.';
COMMENT ON COLUMN attribution_model_states.trained_at IS 'When it was trained.';
COMMENT ON COLUMN attribution_model_states.is_active IS 'Whether new versions of conversions use it.';
COMMENT ON COLUMN attribution_model_states.activated_at IS 'When it was last activated.';
COMMENT ON COLUMN attribution_model_states.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_model_states.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_model_sets (
    tenant_id  text COLLATE "C"        NOT NULL,
    model_set  bigint      NOT NULL,
    versions   jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, model_set)
);
COMMENT ON TABLE attribution_model_sets IS 'What was active together, numbered per tenant: a conversion''s version pins one of these, so that its result can always be computed again.';
COMMENT ON COLUMN attribution_model_sets.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_model_sets.model_set IS '1, 2, 3, ...; the highest is in force.';
COMMENT ON COLUMN attribution_model_sets.versions IS 'Model name to version.';
COMMENT ON COLUMN attribution_model_sets.created_at IS 'When it came into force.';
COMMENT ON COLUMN attribution_model_sets.updated_at IS 'When the row was last changed.';

CREATE TABLE attribution_policies (
    tenant_id      text COLLATE "C"        NOT NULL DEFAULT '*',
    policy_version text        NOT NULL,
    document       jsonb       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, policy_version)
);
COMMENT ON TABLE attribution_policies IS 'Every lookback policy that was ever in force, by version.';
COMMENT ON COLUMN attribution_policies.tenant_id IS 'The tenant; * for all.';
COMMENT ON COLUMN attribution_policies.policy_version IS 'Name and hash of the rules.';
COMMENT ON COLUMN attribution_policies.document IS 'The policy as it was written.';
COMMENT ON COLUMN attribution_policies.created_at IS 'When it was first used.';
COMMENT ON COLUMN attribution_policies.updated_at IS 'When the row was last changed.';

CREATE TABLE attribution_batch_jobs (
    tenant_id    text COLLATE "C"        NOT NULL,
    job_id       text COLLATE "C"        NOT NULL,
    kind         text        NOT NULL,
    parameters   jsonb       NOT NULL,
    state        text        NOT NULL,
    done         bigint      NOT NULL DEFAULT 0,
    total        bigint,
    error        text,
    result       jsonb,
    submitted_by text,
    submitted_at timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    heartbeat_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, job_id),
    CHECK (state IN ('submitted', 'running', 'succeeded', 'failed', 'cancelled'))
);
CREATE INDEX attribution_batch_jobs_state ON attribution_batch_jobs (tenant_id, state, submitted_at);
COMMENT ON TABLE attribution_batch_jobs IS 'Batch analyses and trainings, idempotent by job id.';
COMMENT ON COLUMN attribution_batch_jobs.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_batch_jobs.job_id IS 'Unique in the tenant.';
COMMENT ON COLUMN attribution_batch_jobs.kind IS 'analyze_journey, analyze_batch, train, activate, rollback, backtest.';
COMMENT ON COLUMN attribution_batch_jobs.parameters IS 'What the kind needs.';
COMMENT ON COLUMN attribution_batch_jobs.state IS 'submitted, running, succeeded, failed or cancelled.';
COMMENT ON COLUMN attribution_batch_jobs.done IS 'Steps done.';
COMMENT ON COLUMN attribution_batch_jobs.total IS 'Steps in all, when known.';
COMMENT ON COLUMN attribution_batch_jobs.error IS 'What went wrong, in one sentence.';
COMMENT ON COLUMN attribution_batch_jobs.result IS 'The aggregated result.';
COMMENT ON COLUMN attribution_batch_jobs.submitted_by IS 'Who asked.';
COMMENT ON COLUMN attribution_batch_jobs.submitted_at IS 'When.';
COMMENT ON COLUMN attribution_batch_jobs.started_at IS 'When work began.';
COMMENT ON COLUMN attribution_batch_jobs.finished_at IS 'When it ended.';
COMMENT ON COLUMN attribution_batch_jobs.heartbeat_at IS 'When the worker last showed progress.';
COMMENT ON COLUMN attribution_batch_jobs.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_batch_jobs.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_positions (
    tenant_id      text COLLATE "C"        NOT NULL DEFAULT '*',
    consumer_group text COLLATE "C"        NOT NULL,
    topic          text COLLATE "C"        NOT NULL,
    partition      integer     NOT NULL,
    next_offset    bigint      NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, consumer_group, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE attribution_positions IS 'What each consumer group has stored up to, written in the transaction of the data; Kafka holds it as well, and the smaller one counts.';
COMMENT ON COLUMN attribution_positions.tenant_id IS 'Always *: topics are shared by all tenants.';
COMMENT ON COLUMN attribution_positions.consumer_group IS 'The group.';
COMMENT ON COLUMN attribution_positions.topic IS 'The topic.';
COMMENT ON COLUMN attribution_positions.partition IS 'The partition.';
COMMENT ON COLUMN attribution_positions.next_offset IS 'Next offset to read.';
COMMENT ON COLUMN attribution_positions.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_positions.updated_at IS 'When it was last changed.';
