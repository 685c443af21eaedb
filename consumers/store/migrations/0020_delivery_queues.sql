-- The pending deliveries of one tenant at one account, oldest first, however many others are pending. It stands in the
-- place of the index by destination and state, so that a delivery is written into as many indexes as before.

CREATE INDEX attribution_deliveries_queue
    ON attribution_deliveries (destination, state, tenant_id, occurred_at)
    WHERE state IN ('pending', 'uncertain', 'rejected');

DROP INDEX attribution_deliveries_not_final;
