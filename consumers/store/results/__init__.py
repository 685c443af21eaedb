"""Stored results and their versions."""
