"""X's Conversion API."""
