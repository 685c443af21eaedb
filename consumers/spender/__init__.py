"""The spender: reports of what ads cost in, revisions of spend in Postgres out. It computes nothing."""
