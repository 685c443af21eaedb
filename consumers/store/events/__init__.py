"""Stored touchpoints, conversions and identity links: the stitching transaction, and reads of it."""
