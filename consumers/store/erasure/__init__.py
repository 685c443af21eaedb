"""Erasure of people in Postgres: the ledger, the requests, the removal, amounts that stay, results taken back."""
