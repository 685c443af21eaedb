-- The roll-up's tables have one index each: the primary key begins with what reports look for, so a new row is entered
-- once, beside the rows of its day. Changes by row of days had no reader; attribution_rollup_restatements says by name
-- what changed, when and why.
DROP TABLE attribution_rollup_changes;

ALTER TABLE attribution_rollup_days DROP CONSTRAINT attribution_rollup_days_pkey;
ALTER TABLE attribution_rollup_days ADD CONSTRAINT attribution_rollup_days_pkey PRIMARY KEY (tenant_id, dating, day, row_md5);
DROP INDEX attribution_rollup_days_day;

ALTER TABLE attribution_rollup_names DROP CONSTRAINT attribution_rollup_names_pkey;
ALTER TABLE attribution_rollup_names ADD CONSTRAINT attribution_rollup_names_pkey PRIMARY KEY (tenant_id, grain, day, row_md5);
DROP INDEX attribution_rollup_names_day;

ALTER TABLE attribution_rollup_restatements DROP CONSTRAINT attribution_rollup_restatements_pkey;
ALTER TABLE attribution_rollup_restatements ADD CONSTRAINT attribution_rollup_restatements_pkey PRIMARY KEY (tenant_id, grain, reported_day, row_md5);
DROP INDEX attribution_rollup_restatements_day;

ALTER TABLE attribution_rollup_counts DROP CONSTRAINT attribution_rollup_counts_pkey;
ALTER TABLE attribution_rollup_counts ADD CONSTRAINT attribution_rollup_counts_pkey PRIMARY KEY (tenant_id, kind, day, row_md5);
DROP INDEX attribution_rollup_counts_kind;
