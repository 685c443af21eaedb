-- What the stitcher had decided before a tenant's records were left to the relay, so that nothing is judged a second time.

ALTER TABLE attribution_tenant_moves ADD COLUMN decided_to jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN attribution_tenant_moves.decided_to IS 'Topic to partition to the offset before which the stitcher here decided. Of the records before it only those that are stored are relayed.';
