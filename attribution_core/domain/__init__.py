"""The terms of attribution: journeys, lookback, identity, conversions, money. Imports no other room."""
