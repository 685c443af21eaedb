-- What was erased and what retired, for people and dashboards: with it, sums are what they were.

CREATE VIEW reporting.removed AS
SELECT tenant_id, bucket, day::timestamp AT TIME ZONE 'UTC' AS day, conversion_type, currency, conversions,
       round(gross_micros / 1e6::numeric, 6) AS gross_value, round(net_micros / 1e6::numeric, 6) AS net_value
FROM attribution_removed_totals;
COMMENT ON VIEW reporting.removed IS 'Conversions that are not stored one by one any more, by day: erased people, and what retention retired. Net values of reporting.conversions and of this view together are never changed by a removal.';
COMMENT ON COLUMN reporting.removed.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.removed.bucket IS '(erased): by a request that names the person. (retired): by the retention of the tenant.';
COMMENT ON COLUMN reporting.removed.day IS 'Day of the conversions: its beginning in UTC.';
COMMENT ON COLUMN reporting.removed.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.removed.currency IS 'ISO 4217; XXX: conversions without value.';
COMMENT ON COLUMN reporting.removed.conversions IS 'How many.';
COMMENT ON COLUMN reporting.removed.gross_value IS 'Value before refunds, in the currency.';
COMMENT ON COLUMN reporting.removed.net_value IS 'Value less refunds, in the currency; refunds that come later still change it.';

CREATE VIEW reporting.retired_credit AS
SELECT tenant_id, day::timestamp AT TIME ZONE 'UTC' AS day, conversion_type, currency, model, channel, platform, campaign,
       round(credit_billionths / 1e9::numeric, 6) AS credit, round(value_micros / 1e6::numeric, 6) AS value
FROM attribution_retired_credits;
COMMENT ON VIEW reporting.retired_credit IS 'Credit of conversions that retired, by day. For each model, together with the rows of model *, the values of a day, type and currency sum to the (retired) net value of reporting.removed.';
COMMENT ON COLUMN reporting.retired_credit.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.retired_credit.day IS 'Day of the conversions: its beginning in UTC.';
COMMENT ON COLUMN reporting.retired_credit.conversion_type IS 'purchase, lead, signup, ...';
COMMENT ON COLUMN reporting.retired_credit.currency IS 'ISO 4217; XXX: conversions without value.';
COMMENT ON COLUMN reporting.retired_credit.model IS 'first, last, linear, ...; *: counts for every model.';
COMMENT ON COLUMN reporting.retired_credit.channel IS 'The channel; (unattributed): what no touchpoint gets; (retired): corrections that came later.';
COMMENT ON COLUMN reporting.retired_credit.platform IS 'The platform, or as the channel says.';
COMMENT ON COLUMN reporting.retired_credit.campaign IS 'The campaign; empty: none named.';
COMMENT ON COLUMN reporting.retired_credit.credit IS 'Credited conversions, a sum of shares.';
COMMENT ON COLUMN reporting.retired_credit.value IS 'Credited net revenue, in the currency.';
