"""Postgres: migrations, events, conversions and their versions, results, model states, jobs, delivery ledger.

Invariants: knows no Kafka; every function works on a batch (COPY, ``unnest``, set-based SQL), never on one event;
locks are row locks, taken in sorted order before anything is read that depends on them.
"""
