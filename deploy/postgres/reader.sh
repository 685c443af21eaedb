#!/bin/sh
# Runs once, when the database volume is new: a role that may read what the owner creates, for Grafana and analysts.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set=password="$READER_PASSWORD" <<'SQL'
CREATE ROLE attributary_reader LOGIN PASSWORD :'password';
ALTER ROLE attributary_reader SET default_transaction_read_only = on;
ALTER ROLE attributary_reader SET statement_timeout = '30s';
GRANT CONNECT ON DATABASE attributary TO attributary_reader;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO attributary_reader;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO attributary_reader;
SQL
