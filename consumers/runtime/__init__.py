"""Kafka and process life of every consumer: loop, transactions, errors, metrics, settings, health.

Invariant: nothing in here knows the domain. A stage is handed records and answers with an ``Outcome``; this package
alone decides how that outcome becomes one Kafka transaction, and what happens when anything goes wrong.
"""
