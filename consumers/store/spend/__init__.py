"""Spend, aliases of campaigns, exchange rates and the sums of reports over them, in Postgres."""
