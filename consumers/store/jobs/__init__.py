"""Jobs and their statuses in Postgres."""
