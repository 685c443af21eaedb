"""Roles of Postgres: what each may do, the SQL that makes it so, and the logins of readers."""
