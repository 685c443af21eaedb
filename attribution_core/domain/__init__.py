"""The terms of attribution: journeys, lookback windows, identities, conversions and money. Knows no other room."""
