-- Requests of one millisecond are carried out in the order of the log: where each stood in it.

ALTER TABLE attribution_erasure_requests ADD COLUMN source_partition integer NOT NULL DEFAULT 0;
ALTER TABLE attribution_erasure_requests ADD COLUMN source_offset bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN attribution_erasure_requests.source_partition IS 'Partition of the record; 0 for a request that follows from another one.';
COMMENT ON COLUMN attribution_erasure_requests.source_offset IS 'Offset of the record: of two requests of one millisecond and partition the lower one is carried out first.';
