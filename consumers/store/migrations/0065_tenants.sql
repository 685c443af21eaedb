-- Tenants as data: what a tenant decides for itself. A tenant without a row has every default.

CREATE TABLE attribution_tenants (
    tenant_id             text COLLATE "C" NOT NULL,
    time_zone             text             NOT NULL DEFAULT 'UTC',
    reporting_currency    text,
    touchpoints_kept_days integer          CHECK (touchpoints_kept_days > 0),
    conversions_kept_days integer          CHECK (conversions_kept_days > 0),
    links_kept_days       integer          CHECK (links_kept_days > 0),
    versions_kept_days    integer          CHECK (versions_kept_days > 0),
    erasure_mode          text             NOT NULL DEFAULT 'anonymise' CHECK (erasure_mode IN ('anonymise', 'delete')),
    generic_ids           text[]           NOT NULL DEFAULT '{}',
    real_ids              text[]           NOT NULL DEFAULT '{}',
    consent_defaults      jsonb            NOT NULL DEFAULT '{}',
    created_at            timestamptz      NOT NULL DEFAULT now(),
    updated_at            timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_tenants IS 'What a tenant decides for itself: see attributary tenants. Without a row a tenant has every default.';
COMMENT ON COLUMN attribution_tenants.tenant_id IS 'The tenant.';
COMMENT ON COLUMN attribution_tenants.time_zone IS 'IANA name of the time zone in which its days begin.';
COMMENT ON COLUMN attribution_tenants.reporting_currency IS 'ISO 4217: the currency that its reports convert into; null: none, each currency apart.';
COMMENT ON COLUMN attribution_tenants.touchpoints_kept_days IS 'Touchpoints go so long after their event time, unless a stored conversion may credit them; days, null: kept.';
COMMENT ON COLUMN attribution_tenants.conversions_kept_days IS 'Conversions retire so long after their event time, with their events and results; days, null: kept.';
COMMENT ON COLUMN attribution_tenants.links_kept_days IS 'Identity links go so long after their time, once nothing else of the anonymous id is stored; days, null: kept.';
COMMENT ON COLUMN attribution_tenants.versions_kept_days IS 'As ATTRIBUTION_VERSIONS_KEPT_DAYS, for this tenant; days, null: as the setting says.';
COMMENT ON COLUMN attribution_tenants.erasure_mode IS 'What becomes of an erased person''s conversions: anonymise (their amounts stay in the totals) or delete.';
COMMENT ON COLUMN attribution_tenants.generic_ids IS 'Further ids that name nobody here: events with one become dead letters.';
COMMENT ON COLUMN attribution_tenants.real_ids IS 'Ids that a built-in rule refuses and that are real here.';
COMMENT ON COLUMN attribution_tenants.consent_defaults IS 'Consent by purpose (true, false) where an event does not mention the purpose.';
COMMENT ON COLUMN attribution_tenants.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_tenants.updated_at IS 'When it was last changed.';
