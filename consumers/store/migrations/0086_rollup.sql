-- The roll-up: what the newest results come to, by day and by what reports ask for; kept right by taking off what a
-- conversion contributed before, and adding what it contributes now.

CREATE TABLE attribution_rollup_state (
    tenant_id         text COLLATE "C" NOT NULL,
    time_zone         text             NOT NULL,
    revision          bigint           NOT NULL DEFAULT 0,
    reported_until_us bigint           NOT NULL DEFAULT 0,
    rebuilt_at        timestamptz,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE attribution_rollup_state IS 'The roll-up of a tenant: one row, locked by everybody who changes it.';
COMMENT ON COLUMN attribution_rollup_state.tenant_id IS 'The tenant.';
COMMENT ON COLUMN attribution_rollup_state.time_zone IS 'IANA name of the time zone in which its days are counted; another one needs: attributary rebuild --rollup.';
COMMENT ON COLUMN attribution_rollup_state.revision IS 'Rises with every change of the roll-up.';
COMMENT ON COLUMN attribution_rollup_state.reported_until_us IS 'Latest computing time of a result that is in it, microseconds UTC.';
COMMENT ON COLUMN attribution_rollup_state.rebuilt_at IS 'When it was last made anew from the stored results; null: never.';
COMMENT ON COLUMN attribution_rollup_state.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_state.updated_at IS 'When the roll-up was last changed.';

CREATE TABLE attribution_rollup_conversions (
    tenant_id       text COLLATE "C" NOT NULL,
    conversion_md5  uuid             NOT NULL,
    person_md5      uuid             NOT NULL,
    version         bigint           NOT NULL,
    reported_at_us  bigint           NOT NULL,
    conversion_type text COLLATE "C" NOT NULL,
    currency        text             NOT NULL,
    converted_at_us bigint           NOT NULL,
    is_new          boolean          NOT NULL,
    net_micros      bigint           NOT NULL,
    cells           text             NOT NULL,
    created_at      timestamptz      NOT NULL DEFAULT now(),
    updated_at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversion_md5)
);
CREATE INDEX attribution_rollup_conversions_person
    ON attribution_rollup_conversions (tenant_id, person_md5, conversion_type, converted_at_us, conversion_md5);
COMMENT ON TABLE attribution_rollup_conversions IS 'What each conversion contributes to the roll-up, so that it can be taken off exactly. Names nobody.';
COMMENT ON COLUMN attribution_rollup_conversions.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_conversions.conversion_md5 IS 'MD5 of the conversion id: to find it, not to hide it.';
COMMENT ON COLUMN attribution_rollup_conversions.person_md5 IS 'MD5 of the journey key: conversions of one person have the same.';
COMMENT ON COLUMN attribution_rollup_conversions.version IS 'Version of the result that is in the roll-up.';
COMMENT ON COLUMN attribution_rollup_conversions.reported_at_us IS 'When that version was computed, never before the version in front of it; microseconds UTC.';
COMMENT ON COLUMN attribution_rollup_conversions.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_conversions.currency IS 'ISO 4217.';
COMMENT ON COLUMN attribution_rollup_conversions.converted_at_us IS 'Event time, microseconds UTC.';
COMMENT ON COLUMN attribution_rollup_conversions.is_new IS 'True for the first conversion of its type in the person''s stored history.';
COMMENT ON COLUMN attribution_rollup_conversions.net_micros IS 'Net value, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_conversions.cells IS 'JSON: t, the touchpoints as [channel, platform, campaign id, campaign, microseconds UTC]; m, the models as [name, billionths, micros, rest of billionths, rest of micros].';
COMMENT ON COLUMN attribution_rollup_conversions.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_conversions.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_people (
    tenant_id       text COLLATE "C" NOT NULL,
    person_md5      uuid             NOT NULL,
    conversion_type text COLLATE "C" NOT NULL,
    created_at      timestamptz      NOT NULL DEFAULT now(),
    updated_at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, person_md5, conversion_type)
);
COMMENT ON TABLE attribution_rollup_people IS 'People with conversions that retired: what they buy next is no first purchase. Names nobody.';
COMMENT ON COLUMN attribution_rollup_people.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_people.person_md5 IS 'MD5 of the journey key.';
COMMENT ON COLUMN attribution_rollup_people.conversion_type IS 'Of the conversions that retired.';
COMMENT ON COLUMN attribution_rollup_people.created_at IS 'When the first one retired.';
COMMENT ON COLUMN attribution_rollup_people.updated_at IS 'When the row was last changed.';

CREATE TABLE attribution_rollup_days (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    grain             text             NOT NULL CHECK (grain IN ('touch', 'channel', 'platform')),
    dating            text             NOT NULL CHECK (dating IN ('cash', 'accrual')),
    day               date             NOT NULL,
    conversion_type   text             NOT NULL,
    currency          text             NOT NULL,
    is_new            boolean          NOT NULL,
    model             text             NOT NULL,
    channel           text             NOT NULL,
    platform          text             NOT NULL,
    campaign_id       text             NOT NULL,
    campaign          text             NOT NULL,
    credit_billionths bigint           NOT NULL,
    value_micros      bigint           NOT NULL,
    journeys          bigint           NOT NULL,
    squares           numeric          NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5)
) WITH (fillfactor = 70);
CREATE INDEX attribution_rollup_days_day ON attribution_rollup_days (tenant_id, grain, dating, day);
COMMENT ON TABLE attribution_rollup_days IS 'Sums over the newest results: one row a day and combination. Choose one grain, one dating, one model and one currency; then credits and values add up, with (unattributed).';
COMMENT ON COLUMN attribution_rollup_days.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_days.row_md5 IS 'MD5 of grain, dating, day and the other columns before the sums.';
COMMENT ON COLUMN attribution_rollup_days.grain IS 'touch: by channel, platform and campaign; channel, platform: by that alone, with journeys and squares, dated cash only.';
COMMENT ON COLUMN attribution_rollup_days.dating IS 'cash: the day of the conversion; accrual: the day of each touchpoint, for what no touchpoint gets the day of the conversion.';
COMMENT ON COLUMN attribution_rollup_days.day IS 'Day in the time zone of attribution_rollup_state.';
COMMENT ON COLUMN attribution_rollup_days.conversion_type IS 'purchase, lead, ...';
COMMENT ON COLUMN attribution_rollup_days.currency IS 'ISO 4217; never add two.';
COMMENT ON COLUMN attribution_rollup_days.is_new IS 'Whether the conversions are the first of their type in the person''s stored history.';
COMMENT ON COLUMN attribution_rollup_days.model IS 'first, last, linear, ...';
COMMENT ON COLUMN attribution_rollup_days.channel IS 'The channel; (unattributed): what no touchpoint gets; empty at grain platform.';
COMMENT ON COLUMN attribution_rollup_days.platform IS 'The platform; (unattributed); empty at grain channel.';
COMMENT ON COLUMN attribution_rollup_days.campaign_id IS 'The platform''s id of the campaign; empty: it has none. Its name stands in attribution_rollup_campaigns.';
COMMENT ON COLUMN attribution_rollup_days.campaign IS 'The campaign''s name where it has no id; empty: none named.';
COMMENT ON COLUMN attribution_rollup_days.credit_billionths IS 'Shares of conversions, billionths: the sum over all rows of a model is 1,000,000,000 a conversion, exactly.';
COMMENT ON COLUMN attribution_rollup_days.value_micros IS 'Credited net value, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_days.journeys IS 'Grains channel and platform: conversions with a touchpoint of the row, each once; not additive over rows. 0 at grain touch.';
COMMENT ON COLUMN attribution_rollup_days.squares IS 'Grains channel and platform: sum over conversions of the squared credit in millionths, for intervals. 0 at grain touch.';
COMMENT ON COLUMN attribution_rollup_days.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_days.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_changes (
    tenant_id         text COLLATE "C" NOT NULL,
    row_md5           uuid             NOT NULL,
    reported_day      date             NOT NULL,
    reason            text COLLATE "C" NOT NULL,
    credit_billionths bigint           NOT NULL,
    value_micros      bigint           NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, row_md5, reported_day, reason)
) WITH (fillfactor = 70);
CREATE INDEX attribution_rollup_changes_day ON attribution_rollup_changes (tenant_id, reported_day);
COMMENT ON TABLE attribution_rollup_changes IS 'What changed a row of attribution_rollup_days at grain touch, when and why: all changes of a row sum to it. As reported at the end of a day = the row less the changes after that day.';
COMMENT ON COLUMN attribution_rollup_changes.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_changes.row_md5 IS 'The row of attribution_rollup_days.';
COMMENT ON COLUMN attribution_rollup_changes.reported_day IS 'Day on which the version was computed, in the tenant''s time zone.';
COMMENT ON COLUMN attribution_rollup_changes.reason IS 'new, late_touchpoint, identity, restated, refund, final, model_refit, repair, erasure, retirement, new_customer.';
COMMENT ON COLUMN attribution_rollup_changes.credit_billionths IS 'Change, billionths of a conversion.';
COMMENT ON COLUMN attribution_rollup_changes.value_micros IS 'Change, micros of the currency.';
COMMENT ON COLUMN attribution_rollup_changes.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_changes.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_rollup_campaigns (
    tenant_id   text COLLATE "C" NOT NULL,
    platform    text COLLATE "C" NOT NULL,
    campaign_id text COLLATE "C" NOT NULL,
    campaign    text             NOT NULL,
    named_at_us bigint           NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT now(),
    updated_at  timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, platform, campaign_id)
);
COMMENT ON TABLE attribution_rollup_campaigns IS 'Names of campaigns: labels, the newest by the time of the touchpoint.';
COMMENT ON COLUMN attribution_rollup_campaigns.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_rollup_campaigns.platform IS 'The platform that gave the id.';
COMMENT ON COLUMN attribution_rollup_campaigns.campaign_id IS 'The id.';
COMMENT ON COLUMN attribution_rollup_campaigns.campaign IS 'Its name.';
COMMENT ON COLUMN attribution_rollup_campaigns.named_at_us IS 'Time of the touchpoint that names it so, microseconds UTC.';
COMMENT ON COLUMN attribution_rollup_campaigns.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_rollup_campaigns.updated_at IS 'When it was last changed.';
