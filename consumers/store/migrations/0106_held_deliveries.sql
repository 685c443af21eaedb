-- no transaction
-- What is held for a refused event name is found without a look at anything else.
CREATE INDEX CONCURRENTLY IF NOT EXISTS attribution_deliveries_held ON attribution_deliveries (destination, tenant_id, event_name, occurred_at) WHERE state = 'held';
