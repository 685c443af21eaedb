"""Additive integer statistics of journeys: chains, sets, credit sums, exposures. Imports `domain` only."""
