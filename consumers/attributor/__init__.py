"""The attributor: commands in, results out.

Its deciding write is the Kafka transaction: it reads Postgres and writes nothing there.
"""
