-- Of two reports the newer one counts, whichever comes first: the time at which each was made stands with its rows.

ALTER TABLE attribution_spend ADD COLUMN reported_at_us bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN attribution_spend.reported_at_us IS 'When the newest report that has the row so was made, microseconds UTC; 0: imported before this was kept.';

ALTER TABLE attribution_spend_slices ADD COLUMN complete_reported_at_us bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN attribution_spend_slices.complete_reported_at_us IS 'When the newest complete report was made, microseconds UTC: older reports change nothing; 0: there was none.';

CREATE OR REPLACE FUNCTION attribution_spend_refuses_changes() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF to_jsonb(NEW) - '{reported_at_us,updated_at}'::text[] IS DISTINCT FROM
       to_jsonb(OLD) - '{reported_at_us,updated_at}'::text[] THEN
        RAISE EXCEPTION 'attribution_spend: revisions are only added, never changed';
    END IF;
    RETURN NEW;
END $$;
