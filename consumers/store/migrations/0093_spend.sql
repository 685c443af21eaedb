-- What ads cost: revisions that are only added, the newest counts. A slice is an account's day at one level; whoever
-- writes one locks its row first. Nothing here names a person, so no erasure touches it.

CREATE TABLE attribution_spend_slices (
    tenant_id   text COLLATE "C" NOT NULL,
    platform    text COLLATE "C" NOT NULL,
    account     text COLLATE "C" NOT NULL,
    day         date             NOT NULL,
    level       text COLLATE "C" NOT NULL
        CONSTRAINT attribution_spend_slices_level_known CHECK (level IN ('account', 'campaign', 'ad_set', 'ad')),
    time_zone   text             NOT NULL,
    revision    integer          NOT NULL DEFAULT 0,
    report_id   text             NOT NULL DEFAULT '',
    complete_at timestamptz,
    imported_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    created_at  timestamptz      NOT NULL DEFAULT now(),
    updated_at  timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, platform, account, day, level)
) WITH (fillfactor = 70);
COMMENT ON TABLE attribution_spend_slices IS 'Days of ad accounts at each level of a report: locked by whoever writes revisions of it.';
COMMENT ON COLUMN attribution_spend_slices.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_spend_slices.platform IS 'google, meta, tiktok, ...';
COMMENT ON COLUMN attribution_spend_slices.account IS 'The platform''s id of the ad account.';
COMMENT ON COLUMN attribution_spend_slices.day IS 'Day of the ads in the account''s own time zone; never split.';
COMMENT ON COLUMN attribution_spend_slices.level IS 'What a row is of: account, campaign, ad_set or ad.';
COMMENT ON COLUMN attribution_spend_slices.time_zone IS 'IANA name of the zone in which the account reports; empty: not known.';
COMMENT ON COLUMN attribution_spend_slices.revision IS 'How many imports changed something.';
COMMENT ON COLUMN attribution_spend_slices.report_id IS 'The report that was imported last.';
COMMENT ON COLUMN attribution_spend_slices.complete_at IS 'Since when a complete report is here, so that what it lacks cost nothing; null: there was none.';
COMMENT ON COLUMN attribution_spend_slices.imported_at IS 'When it was last imported, changed or not.';
COMMENT ON COLUMN attribution_spend_slices.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_spend_slices.updated_at IS 'When it was last changed.';

CREATE TABLE attribution_spend (
    tenant_id                 text COLLATE "C" NOT NULL,
    platform                  text COLLATE "C" NOT NULL,
    account                   text COLLATE "C" NOT NULL,
    day                       date             NOT NULL,
    level                     text COLLATE "C" NOT NULL
        CONSTRAINT attribution_spend_level_known CHECK (level IN ('account', 'campaign', 'ad_set', 'ad')),
    entity                    text COLLATE "C" NOT NULL,
    revision                  integer          NOT NULL,
    campaign_id               text COLLATE "C" NOT NULL,
    campaign_name             text             NOT NULL,
    ad_set_id                 text COLLATE "C" NOT NULL,
    ad_set_name               text             NOT NULL,
    ad_id                     text COLLATE "C" NOT NULL,
    ad_name                   text             NOT NULL,
    currency                  text COLLATE "C" NOT NULL,
    net_micros                bigint           NOT NULL,
    tax_micros                bigint           NOT NULL,
    impressions               bigint           NOT NULL,
    clicks                    bigint           NOT NULL,
    claimed_conversions       numeric          NOT NULL,
    claimed_value_micros      bigint           NOT NULL,
    is_removed                boolean          NOT NULL,
    report_id                 text             NOT NULL,
    created_at                timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at                timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, platform, account, day, level, entity, revision)
);
CREATE INDEX attribution_spend_day ON attribution_spend (tenant_id, day);
CREATE FUNCTION attribution_spend_refuses_changes() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'attribution_spend: revisions are only added, never changed'; END $$;
CREATE TRIGGER attribution_spend_insert_only BEFORE UPDATE ON attribution_spend
    FOR EACH ROW EXECUTE FUNCTION attribution_spend_refuses_changes();
COMMENT ON TABLE attribution_spend IS 'What ads cost a day, each revision; the highest counts. Levels overlap: sum reporting.spend, not this table.';
COMMENT ON COLUMN attribution_spend.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_spend.platform IS 'google, meta, tiktok, ...';
COMMENT ON COLUMN attribution_spend.account IS 'The platform''s id of the ad account.';
COMMENT ON COLUMN attribution_spend.day IS 'Day of the ads in the account''s own time zone.';
COMMENT ON COLUMN attribution_spend.level IS 'What the row is of: account, campaign, ad_set or ad.';
COMMENT ON COLUMN attribution_spend.entity IS 'The platform''s id of what the row is of; name:<name> where the report has no ids.';
COMMENT ON COLUMN attribution_spend.revision IS 'The slice''s number of changes when the row was written.';
COMMENT ON COLUMN attribution_spend.campaign_id IS 'The campaign; name:<name> without an id; empty at account level.';
COMMENT ON COLUMN attribution_spend.campaign_name IS 'Its name at that time.';
COMMENT ON COLUMN attribution_spend.ad_set_id IS 'The ad set or ad group; empty above its level.';
COMMENT ON COLUMN attribution_spend.ad_set_name IS 'Its name at that time.';
COMMENT ON COLUMN attribution_spend.ad_id IS 'The ad; empty above its level.';
COMMENT ON COLUMN attribution_spend.ad_name IS 'Its name at that time.';
COMMENT ON COLUMN attribution_spend.currency IS 'ISO 4217, of all amounts of the row.';
COMMENT ON COLUMN attribution_spend.net_micros IS 'What was billed, without tax, micros of the currency; negative: the platform gave money back.';
COMMENT ON COLUMN attribution_spend.tax_micros IS 'Tax that the report included, micros.';
COMMENT ON COLUMN attribution_spend.impressions IS 'As the platform counts them.';
COMMENT ON COLUMN attribution_spend.clicks IS 'As the platform counts them.';
COMMENT ON COLUMN attribution_spend.claimed_conversions IS 'Conversions that the platform claims for itself; several platforms claim the same one, so never added over platforms.';
COMMENT ON COLUMN attribution_spend.claimed_value_micros IS 'Their value as the platform claims it, micros; never added over platforms.';
COMMENT ON COLUMN attribution_spend.is_removed IS 'A complete report no longer has it: it cost nothing.';
COMMENT ON COLUMN attribution_spend.report_id IS 'The report that it came with.';
COMMENT ON COLUMN attribution_spend.created_at IS 'When it was imported.';
COMMENT ON COLUMN attribution_spend.updated_at IS 'The same: revisions never change.';

CREATE TABLE attribution_campaign_aliases (
    tenant_id   text COLLATE "C" NOT NULL,
    platform    text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL CONSTRAINT attribution_campaign_aliases_kind_known CHECK (kind IN ('id', 'name')),
    value       text COLLATE "C" NOT NULL,
    account     text COLLATE "C" NOT NULL,
    campaign_id text COLLATE "C" NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT now(),
    updated_at  timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, platform, kind, value)
);
COMMENT ON TABLE attribution_campaign_aliases IS 'What touchpoints call a campaign where they do not use its id or name: see attributary spend aliases.';
COMMENT ON COLUMN attribution_campaign_aliases.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_campaign_aliases.platform IS 'Platform of the touchpoints.';
COMMENT ON COLUMN attribution_campaign_aliases.kind IS 'id: their campaign_id; name: their campaign name, or utm_campaign where it is the name.';
COMMENT ON COLUMN attribution_campaign_aliases.value IS 'What they say.';
COMMENT ON COLUMN attribution_campaign_aliases.account IS 'Account of the campaign that is meant.';
COMMENT ON COLUMN attribution_campaign_aliases.campaign_id IS 'The campaign that is meant, on the same platform.';
COMMENT ON COLUMN attribution_campaign_aliases.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_campaign_aliases.updated_at IS 'When it was last changed.';

-- Levels overlap, so one counts: the finest complete one of an account's day, else the finest that is there. What a
-- coarser row has above the sum of its finer ones is (not broken down); where it has less, the finer ones count.
-- All windows are within a tenant, account and day, so conditions on these reach the table. `SET attributary.as_of =
-- '2026-11-01'` shows spend as it was imported by then.
CREATE VIEW reporting.spend AS
WITH newest AS (
    SELECT DISTINCT ON (s.tenant_id, s.platform, s.account, s.day, s.level, s.entity)
           s.*, array_position(ARRAY['account', 'campaign', 'ad_set', 'ad'], s.level) AS depth
    FROM attribution_spend s
    WHERE s.created_at <= COALESCE(NULLIF(current_setting('attributary.as_of', true), ''), 'infinity')::timestamptz
    ORDER BY s.tenant_id, s.platform, s.account, s.day, s.level, s.entity, s.revision DESC
), based AS (
    SELECT n.*, c.time_zone,
           COALESCE(
               max(n.depth) FILTER (
                   WHERE c.complete_at
                         <= COALESCE(NULLIF(current_setting('attributary.as_of', true), ''), 'infinity')::timestamptz
               ) OVER (PARTITION BY n.tenant_id, n.platform, n.account, n.day),
               max(n.depth) OVER (PARTITION BY n.tenant_id, n.platform, n.account, n.day)
           ) AS base
    FROM newest n
    JOIN attribution_spend_slices c
      ON c.tenant_id = n.tenant_id AND c.platform = n.platform AND c.account = n.account AND c.day = n.day
     AND c.level = n.level
), fine AS (
    SELECT b.*,
           COALESCE(sum(net_micros) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_net_micros,
           COALESCE(sum(tax_micros) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_tax_micros,
           COALESCE(sum(impressions) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_impressions,
           COALESCE(sum(clicks) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_clicks,
           COALESCE(sum(claimed_conversions) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_claimed_conversions,
           COALESCE(sum(claimed_value_micros) FILTER (WHERE depth = base) OVER campaign, 0) AS fine_claimed_value_micros
    FROM based b
    WINDOW campaign AS (PARTITION BY tenant_id, platform, account, day, currency, campaign_id)
), counted AS (
    SELECT f.*,
           CASE WHEN depth = base THEN 'row'
                WHEN depth = 2 AND base > 2 AND net_micros > fine_net_micros THEN 'campaign'
                WHEN depth = 1 AND base > 1 THEN 'account' END AS part,
           CASE WHEN depth = base THEN net_micros ELSE net_micros - fine_net_micros END AS own_net_micros,
           CASE WHEN depth = base THEN tax_micros ELSE tax_micros - fine_tax_micros END AS own_tax_micros,
           CASE WHEN depth = base THEN impressions ELSE impressions - fine_impressions END AS own_impressions,
           CASE WHEN depth = base THEN clicks ELSE clicks - fine_clicks END AS own_clicks,
           CASE WHEN depth = base THEN claimed_conversions ELSE claimed_conversions - fine_claimed_conversions END AS own_claimed_conversions,
           CASE WHEN depth = base THEN claimed_value_micros ELSE claimed_value_micros - fine_claimed_value_micros END AS own_claimed_value_micros
    FROM fine f WHERE depth = base OR (depth <= 2 AND base > depth)
), whole AS (
    SELECT c.*,
           COALESCE(sum(own_net_micros) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_net_micros,
           COALESCE(sum(own_tax_micros) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_tax_micros,
           COALESCE(sum(own_impressions) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_impressions,
           COALESCE(sum(own_clicks) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_clicks,
           COALESCE(sum(own_claimed_conversions) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_claimed_conversions,
           COALESCE(sum(own_claimed_value_micros) FILTER (WHERE part IN ('row', 'campaign')) OVER of_account, 0) AS whole_claimed_value_micros
    FROM counted c WHERE part IS NOT NULL
    WINDOW of_account AS (PARTITION BY tenant_id, platform, account, day, currency)
)
SELECT tenant_id, platform, account, day, time_zone, level,
       CASE part WHEN 'account' THEN '(not broken down)' ELSE campaign_id END AS campaign_id,
       CASE part WHEN 'row' THEN ad_set_id ELSE '(not broken down)' END AS ad_set_id,
       CASE part WHEN 'row' THEN ad_id ELSE '(not broken down)' END AS ad_id,
       part <> 'row' AS is_rest, currency,
       round(CASE part WHEN 'account' THEN net_micros - whole_net_micros ELSE own_net_micros END / 1e6::numeric, 6) AS spend,
       round(CASE part WHEN 'account' THEN tax_micros - whole_tax_micros ELSE own_tax_micros END / 1e6::numeric, 6) AS tax,
       CASE part WHEN 'account' THEN impressions - whole_impressions ELSE own_impressions END AS impressions,
       CASE part WHEN 'account' THEN clicks - whole_clicks ELSE own_clicks END AS clicks,
       CASE part WHEN 'account' THEN claimed_conversions - whole_claimed_conversions
                 ELSE own_claimed_conversions END AS claimed_conversions,
       round(CASE part WHEN 'account' THEN claimed_value_micros - whole_claimed_value_micros
                       ELSE own_claimed_value_micros END / 1e6::numeric, 6) AS claimed_value
FROM whole WHERE part <> 'account' OR net_micros > whole_net_micros;
COMMENT ON VIEW reporting.spend IS 'What ads cost: sum it as it is. One level counts per account and day; the newest revisions.';
COMMENT ON COLUMN reporting.spend.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.spend.platform IS 'google, meta, tiktok, ...';
COMMENT ON COLUMN reporting.spend.account IS 'The platform''s id of the ad account.';
COMMENT ON COLUMN reporting.spend.day IS 'Day of the ads in the account''s own time zone.';
COMMENT ON COLUMN reporting.spend.time_zone IS 'The account''s time zone; empty: not known.';
COMMENT ON COLUMN reporting.spend.level IS 'Level of the report that the row came from.';
COMMENT ON COLUMN reporting.spend.campaign_id IS 'The campaign; (not broken down): what the account cost above its campaigns.';
COMMENT ON COLUMN reporting.spend.ad_set_id IS 'The ad set; (not broken down): what the campaign cost above its ads.';
COMMENT ON COLUMN reporting.spend.ad_id IS 'The ad.';
COMMENT ON COLUMN reporting.spend.is_rest IS 'True: a rest that no finer row explains.';
COMMENT ON COLUMN reporting.spend.currency IS 'ISO 4217; currencies are never added.';
COMMENT ON COLUMN reporting.spend.spend IS 'Without tax, units of the currency.';
COMMENT ON COLUMN reporting.spend.tax IS 'Tax that the report included, units of the currency.';
COMMENT ON COLUMN reporting.spend.impressions IS 'As the platform counts them.';
COMMENT ON COLUMN reporting.spend.clicks IS 'As the platform counts them.';
COMMENT ON COLUMN reporting.spend.claimed_conversions IS 'What the platform claims; never add over platforms.';
COMMENT ON COLUMN reporting.spend.claimed_value IS 'Value that the platform claims; never add over platforms.';

-- The newest name of each campaign, with the days on which it had it.
CREATE VIEW reporting.campaigns AS
SELECT tenant_id, platform, account, campaign_id, campaign_name, min(day) AS first_day, max(day) AS last_day
FROM attribution_spend WHERE campaign_id <> '' AND NOT is_removed
GROUP BY tenant_id, platform, account, campaign_id, campaign_name;
COMMENT ON VIEW reporting.campaigns IS 'Names of campaigns, each with the days of spend that carry it. The key is platform, account and campaign_id.';
COMMENT ON COLUMN reporting.campaigns.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN reporting.campaigns.platform IS 'google, meta, tiktok, ...';
COMMENT ON COLUMN reporting.campaigns.account IS 'The platform''s id of the ad account.';
COMMENT ON COLUMN reporting.campaigns.campaign_id IS 'The campaign.';
COMMENT ON COLUMN reporting.campaigns.campaign_name IS 'A name of it.';
COMMENT ON COLUMN reporting.campaigns.first_day IS 'First day with this name.';
COMMENT ON COLUMN reporting.campaigns.last_day IS 'Last day with this name.';
