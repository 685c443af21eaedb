-- Experiments as data: what a test of spend changed, and what it measured. Revisions are only added, the newest counts.
-- Nothing here names a person, so no erasure touches it, and it is kept for good: a plan may rest on an old test.

CREATE TABLE attribution_experiments (
    tenant_id         text COLLATE "C" NOT NULL,
    experiment        text COLLATE "C" NOT NULL,
    revision          integer          NOT NULL,
    channel           text             NOT NULL,
    design            text COLLATE "C" NOT NULL
        CONSTRAINT attribution_experiments_design_known
        CHECK (design IN ('geo', 'person', 'switchback', 'holdout', 'randomised')),
    first_day         date             NOT NULL,
    end_day           date             NOT NULL,
    currency          text COLLATE "C" NOT NULL,
    spend_from_micros bigint           NOT NULL,
    spend_to_micros   bigint           NOT NULL,
    effect_micros     bigint,
    error_micros      bigint,
    population_share  double precision NOT NULL,
    source            text             NOT NULL,
    is_withdrawn      boolean          NOT NULL DEFAULT false,
    created_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, experiment, revision),
    CONSTRAINT attribution_experiments_days CHECK (first_day < end_day),
    CONSTRAINT attribution_experiments_spends
        CHECK (spend_from_micros >= 0 AND spend_to_micros >= 0 AND spend_from_micros <> spend_to_micros),
    CONSTRAINT attribution_experiments_readout CHECK ((effect_micros IS NULL) = (error_micros IS NULL)),
    CONSTRAINT attribution_experiments_error_positive CHECK (error_micros > 0),
    CONSTRAINT attribution_experiments_share CHECK (population_share > 0 AND population_share <= 1)
);
CREATE FUNCTION attribution_experiments_refuses_changes() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'attribution_experiments: revisions are only added, never changed'; END $$;
CREATE TRIGGER attribution_experiments_insert_only BEFORE UPDATE ON attribution_experiments
    FOR EACH ROW EXECUTE FUNCTION attribution_experiments_refuses_changes();
COMMENT ON TABLE attribution_experiments IS 'Tests of spend and what they measured, each revision; the highest of an experiment counts.';
COMMENT ON COLUMN attribution_experiments.tenant_id IS 'Owner of the row.';
COMMENT ON COLUMN attribution_experiments.experiment IS 'Its name, unique in the tenant.';
COMMENT ON COLUMN attribution_experiments.revision IS '1, and one more for each correction.';
COMMENT ON COLUMN attribution_experiments.channel IS 'The channel that had its spend changed.';
COMMENT ON COLUMN attribution_experiments.design IS 'How spend was varied by chance: geo, person, switchback, holdout or randomised.';
COMMENT ON COLUMN attribution_experiments.first_day IS 'First day of the test.';
COMMENT ON COLUMN attribution_experiments.end_day IS 'The day after its last one.';
COMMENT ON COLUMN attribution_experiments.currency IS 'ISO 4217, of all amounts of the row.';
COMMENT ON COLUMN attribution_experiments.spend_from_micros IS 'What the compared arm cost over all days of the test, for the population of the test; micros.';
COMMENT ON COLUMN attribution_experiments.spend_to_micros IS 'What the other arm cost, likewise; micros.';
COMMENT ON COLUMN attribution_experiments.effect_micros IS 'Total sales of the other arm less those of the compared one, likewise; micros, may be negative; null: not read out yet.';
COMMENT ON COLUMN attribution_experiments.error_micros IS 'Standard error of the effect, micros.';
COMMENT ON COLUMN attribution_experiments.population_share IS 'Share of all buyers that the amounts are of; 1: all.';
COMMENT ON COLUMN attribution_experiments.source IS 'Who or what measured it.';
COMMENT ON COLUMN attribution_experiments.is_withdrawn IS 'True: it is not used any more.';
COMMENT ON COLUMN attribution_experiments.created_at IS 'When the revision was stored.';
COMMENT ON COLUMN attribution_experiments.updated_at IS 'The same: revisions never change.';
