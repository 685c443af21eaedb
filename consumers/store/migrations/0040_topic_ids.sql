-- A topic that was deleted and made anew has the same name and another log: its id tells.

ALTER TABLE attribution_positions ADD COLUMN topic_id text;
COMMENT ON COLUMN attribution_positions.topic_id IS 'Kafka''s id of the topic that the offset belongs to; null: stored by an earlier version, until the stage starts.';
