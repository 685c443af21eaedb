"""Pinterest's API for Conversions."""
