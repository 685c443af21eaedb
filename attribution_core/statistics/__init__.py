"""Additive counts of journeys: everything that a trained model remembers."""
