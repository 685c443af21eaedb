"""Tenants that move between installations: how far a move is, and the rows that go along."""
