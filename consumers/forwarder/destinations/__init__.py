"""The destinations: pure functions about one API each."""
