"""Tables of paths, events and experiments, checked and encoded as journeys. Imports `domain` only."""
