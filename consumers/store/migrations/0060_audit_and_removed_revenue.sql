-- Who did what to data and rules, for good; and the revenue of conversions that are no longer kept one by one.

CREATE TABLE attribution_audit (
    tenant_id    text COLLATE "C" NOT NULL,
    audit_number bigint GENERATED ALWAYS AS IDENTITY,
    at           timestamptz      NOT NULL DEFAULT clock_timestamp(),
    actor        text             NOT NULL,
    action       text             NOT NULL,
    subject      text             NOT NULL,
    details      jsonb            NOT NULL DEFAULT '{}',
    created_at   timestamptz      NOT NULL DEFAULT now(),
    updated_at   timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, audit_number)
);
CREATE FUNCTION attribution_audit_refuses_changes() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'attribution_audit: rows are only added, never changed or removed'; END $$;
CREATE TRIGGER attribution_audit_insert_only BEFORE UPDATE OR DELETE ON attribution_audit
    FOR EACH ROW EXECUTE FUNCTION attribution_audit_refuses_changes();
CREATE TRIGGER attribution_audit_no_truncate BEFORE TRUNCATE ON attribution_audit
    FOR EACH STATEMENT EXECUTE FUNCTION attribution_audit_refuses_changes();
COMMENT ON TABLE attribution_audit IS 'Who erased, exported, activated, or changed a rule, and when. Rows are only added. No personal data.';
COMMENT ON COLUMN attribution_audit.tenant_id IS 'The tenant concerned; *: the whole installation.';
COMMENT ON COLUMN attribution_audit.audit_number IS 'Rises with each row.';
COMMENT ON COLUMN attribution_audit.at IS 'When it was done.';
COMMENT ON COLUMN attribution_audit.actor IS 'Who did it: a database role, or the stage that carried out a request.';
COMMENT ON COLUMN attribution_audit.action IS 'What was done, such as erasure.executed or policy.activated.';
COMMENT ON COLUMN attribution_audit.subject IS 'What it was done to, by a name that is no personal data: the id of a request, the version of a policy.';
COMMENT ON COLUMN attribution_audit.details IS 'Numbers and settings, JSON. No personal data.';
COMMENT ON COLUMN attribution_audit.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_audit.updated_at IS 'The same: rows never change.';

CREATE TABLE attribution_removed_totals (
    tenant_id       text COLLATE "C" NOT NULL,
    bucket          text COLLATE "C" NOT NULL
        CONSTRAINT attribution_removed_totals_bucket_known CHECK (bucket IN ('(erased)', '(retired)')),
    day             date             NOT NULL,
    conversion_type text COLLATE "C" NOT NULL,
    currency        text COLLATE "C" NOT NULL,
    conversions     bigint           NOT NULL,
    gross_micros    bigint           NOT NULL,
    net_micros      bigint           NOT NULL,
    created_at      timestamptz      NOT NULL DEFAULT now(),
    updated_at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, bucket, day, conversion_type, currency)
) WITH (fillfactor = 70);
COMMENT ON TABLE attribution_removed_totals IS 'Revenue of conversions that were erased or retired: with it, the sums of each tenant and currency stay what they were.';
COMMENT ON COLUMN attribution_removed_totals.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_removed_totals.bucket IS '(erased): by a request that names the person. (retired): by the retention of the tenant.';
COMMENT ON COLUMN attribution_removed_totals.day IS 'Day of the conversion, UTC.';
COMMENT ON COLUMN attribution_removed_totals.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN attribution_removed_totals.currency IS 'ISO 4217; XXX: conversions without value.';
COMMENT ON COLUMN attribution_removed_totals.conversions IS 'How many.';
COMMENT ON COLUMN attribution_removed_totals.gross_micros IS 'Value before refunds, micros of the currency.';
COMMENT ON COLUMN attribution_removed_totals.net_micros IS 'Value less refunds, micros of the currency; it goes on to change with refunds that come later.';
COMMENT ON COLUMN attribution_removed_totals.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_removed_totals.updated_at IS 'When it was last changed.';
