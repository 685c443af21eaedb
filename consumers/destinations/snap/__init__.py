"""Snap's Conversions API."""
