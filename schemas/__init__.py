"""To be described by its contract."""
