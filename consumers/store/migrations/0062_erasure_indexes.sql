-- no transaction
-- An erasure finds what names a user: links that do not own an anonymous id, and events about conversions of others.
CREATE INDEX CONCURRENTLY IF NOT EXISTS attribution_identity_links_user ON attribution_identity_links (tenant_id, user_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS attribution_conversion_events_person ON attribution_conversion_events (tenant_id, identity_key);
