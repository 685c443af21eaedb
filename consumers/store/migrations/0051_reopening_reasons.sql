-- Links and displaced contents of people with very many conversions are put off as their late touchpoints are.
-- Defaults: a process of the version before goes on writing and reading its columns.

ALTER TABLE attribution_reopenings
    ADD COLUMN changes     bigint NOT NULL DEFAULT 0,
    ADD COLUMN reason      text   NOT NULL DEFAULT 'late_touchpoint',
    ADD COLUMN pass_reason text;
COMMENT ON COLUMN attribution_reopenings.changes IS 'How many links that moved an anonymous id, and contents that gave way to another, were put off in all.';
COMMENT ON COLUMN attribution_reopenings.reason IS 'Of the versions of the next pass: identity if a link is among what was noted, else late_touchpoint.';
COMMENT ON COLUMN attribution_reopenings.pass_reason IS 'Of the versions of the pass that is under way; null: none is, or one of a sweeper of the version before.';
COMMENT ON TABLE attribution_reopenings IS 'People with more conversions than ATTRIBUTION_MAX_REOPENED in reach of late touchpoints, links and displaced contents: the sweeper raises their versions, page by page. A row goes when all are raised.';
