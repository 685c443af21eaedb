-- no transaction: the index is made while stages go on; the one of before serves them until then.
CREATE INDEX CONCURRENTLY IF NOT EXISTS attribution_touchpoints_identity
    ON attribution_touchpoints (tenant_id, identity_hash, occurred_at_us);
DROP INDEX CONCURRENTLY IF EXISTS attribution_touchpoints_journey;
