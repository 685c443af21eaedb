"""Whole analyses of a table of journeys, and what can be said about the result."""
