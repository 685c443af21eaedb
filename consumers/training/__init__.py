"""Training as a library: journeys from the store, models from journeys, analyses of both. Knows no Kafka."""
