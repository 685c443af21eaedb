"""What travels: the Avro schemas, the codec, the rules that a schema cannot say, and the topics.

Invariant: the ``.avsc`` files are the truth about records, ``topics.yaml`` about topics; all else here is derived
from them or checked against them. Nothing here knows Kafka's clients, Postgres or a stage.

Reading path: ``touchpoint.avsc`` -> `codec` (both framings) -> `rules` -> `topics`. Then, for schema changes,
`compatibility` and `resolution`; for speed, `compiled_reader` and `compiled_writer`; for the registry, `registry`.
"""
