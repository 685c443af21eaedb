-- A tenant with too many channels has no incremental state; its trainings read the store.

ALTER TABLE attribution_training_upkeep ADD COLUMN suspended text;
COMMENT ON COLUMN attribution_training_upkeep.suspended IS 'Why no state is kept for the tenant; null: one is kept.';
