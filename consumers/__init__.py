"""Stateful consumers: stages over a runtime and a store; libraries for training, destinations, maintenance."""
