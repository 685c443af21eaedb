"""The forwarder: conversions from Kafka to one destination, one consumer group a destination."""
