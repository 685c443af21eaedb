-- A role that reads the views of the schema `reporting` and nothing else: for Grafana and analysts. Safe to repeat.
--   READER_PASSWORD=... psql "$DATABASE_URL" --file deploy/postgres/roles.sql      after `attributary db migrate`
\set ON_ERROR_STOP on
\getenv password READER_PASSWORD

SELECT 'CREATE ROLE attributary_reader'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'attributary_reader') \gexec

ALTER ROLE attributary_reader LOGIN PASSWORD :'password';
ALTER ROLE attributary_reader SET default_transaction_read_only = on;
ALTER ROLE attributary_reader SET statement_timeout = '30s';

GRANT USAGE ON SCHEMA reporting TO attributary_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO attributary_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA reporting GRANT SELECT ON TABLES TO attributary_reader;

-- Where `attributary roles apply` has put row security on the tables, it sees every tenant.
INSERT INTO attribution_tenant_readers (tenant_id, role_name) VALUES ('*', 'attributary_reader') ON CONFLICT DO NOTHING;
