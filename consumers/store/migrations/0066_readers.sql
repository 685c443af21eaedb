-- Which tenants a reader of the views sees, and the views with people in a schema of their own: another grant.
-- Roles, grants and policies are no part of the schema: `attributary roles apply` makes them (docs/reference/roles.md).

CREATE TABLE attribution_tenant_readers (
    tenant_id  text COLLATE "C" NOT NULL,
    role_name  name             NOT NULL,
    created_at timestamptz      NOT NULL DEFAULT now(),
    updated_at timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, role_name)
);
COMMENT ON TABLE attribution_tenant_readers IS 'Which tenants a login sees in the views of reporting and reporting_people: see attributary tenants reader.';
COMMENT ON COLUMN attribution_tenant_readers.tenant_id IS 'The tenant; * for all.';
COMMENT ON COLUMN attribution_tenant_readers.role_name IS 'The role that reads, as current_user says it.';
COMMENT ON COLUMN attribution_tenant_readers.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_tenant_readers.updated_at IS 'When it was last changed.';

CREATE SCHEMA reporting_people;
COMMENT ON SCHEMA reporting_people IS 'The views of reporting with everything that names a person or tells one apart.';
CREATE VIEW reporting_people.touchpoints AS SELECT * FROM reporting.touchpoints;
CREATE VIEW reporting_people.conversions AS SELECT * FROM reporting.conversions;
CREATE VIEW reporting_people.results AS SELECT * FROM reporting.results;
CREATE VIEW reporting_people.result_versions AS SELECT * FROM reporting.result_versions;
COMMENT ON VIEW reporting_people.touchpoints IS 'Touchpoints with person, pages and all details: columns as in reporting.touchpoints.';
COMMENT ON VIEW reporting_people.conversions IS 'Conversions with person and order: columns as in reporting.conversions.';
COMMENT ON VIEW reporting_people.results IS 'Newest results with person: columns as in reporting.results.';
COMMENT ON VIEW reporting_people.result_versions IS 'All versions of results with person: columns as in reporting.result_versions.';
