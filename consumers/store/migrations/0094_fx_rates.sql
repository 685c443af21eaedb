-- Exchange rates as they were imported: revisions that are only added, the newest of a day counts. Nothing is fetched.

CREATE TABLE attribution_fx_rates (
    tenant_id  text COLLATE "C" NOT NULL DEFAULT '*',
    base       text COLLATE "C" NOT NULL,
    quote      text COLLATE "C" NOT NULL,
    day        date             NOT NULL,
    revision   integer          NOT NULL,
    rate       numeric          NOT NULL CONSTRAINT attribution_fx_rates_rate_positive CHECK (rate > 0),
    source     text             NOT NULL,
    created_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, base, quote, day, revision),
    CONSTRAINT attribution_fx_rates_two_currencies CHECK (base <> quote)
);
COMMENT ON TABLE attribution_fx_rates IS 'Exchange rates, each revision; the highest of a day counts. A day without one has the last before it.';
COMMENT ON COLUMN attribution_fx_rates.tenant_id IS 'Always *: rates are shared by all tenants.';
COMMENT ON COLUMN attribution_fx_rates.base IS 'ISO 4217: one unit of it ...';
COMMENT ON COLUMN attribution_fx_rates.quote IS '... was worth `rate` of this one.';
COMMENT ON COLUMN attribution_fx_rates.day IS 'Day of the rate, as its source dates it.';
COMMENT ON COLUMN attribution_fx_rates.revision IS '1, and one more for each correction.';
COMMENT ON COLUMN attribution_fx_rates.rate IS 'Exact, as the source gives it.';
COMMENT ON COLUMN attribution_fx_rates.source IS 'Where it is from: the name of the imported file, or what --source says.';
COMMENT ON COLUMN attribution_fx_rates.created_at IS 'When it was imported.';
COMMENT ON COLUMN attribution_fx_rates.updated_at IS 'The same: revisions never change.';
