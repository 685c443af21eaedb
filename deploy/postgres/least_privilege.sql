-- Least-privilege roles for the processes. Run by the owner of the database (a superuser, where roles are new) after
-- `attributary db migrate`, and again after an upgrade that brings new tables; safe to repeat:
--     psql -v ON_ERROR_STOP=1 -f deploy/postgres/least_privilege.sql "$DATABASE_URL"
-- The roles cannot log in; grant them to users of your own, for example
--     CREATE USER stitcher PASSWORD '...' IN ROLE attributary_pipeline;
-- People and dashboards get the reader of roles.sql beside this file.

DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['attributary_pipeline', 'attributary_forwarder', 'attributary_analyst',
                                'attributary_verifier'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    -- Stages make temporary staging tables, `attributary verify` a temporary shadow of all tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO attributary_pipeline, attributary_verifier', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO attributary_pipeline, attributary_forwarder, attributary_analyst, '
                   'attributary_verifier', current_database());
END $$;

-- Stitcher, attributor, auditor, sweeper, trainer: read and write rows, change no schema, drop nothing.
GRANT USAGE ON SCHEMA public, reporting TO attributary_pipeline;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO attributary_pipeline;
REVOKE INSERT, UPDATE, DELETE ON attribution_migrations FROM attributary_pipeline;
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO attributary_pipeline;

-- Forwarders: their ledger and their positions, no journey and no result.
GRANT USAGE ON SCHEMA public TO attributary_forwarder;
GRANT SELECT ON attribution_migrations, attribution_tenants TO attributary_forwarder;
GRANT SELECT, INSERT, UPDATE, DELETE ON attribution_deliveries, attribution_positions TO attributary_forwarder;

-- `attributary verify` and `explain`: read everything, write nothing that lasts.
GRANT USAGE ON SCHEMA public TO attributary_verifier;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO attributary_verifier;

-- Analysts: the views, read-only.
GRANT USAGE ON SCHEMA reporting TO attributary_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO attributary_analyst;
