"""Attributary inside other engines: what runs on a cluster of somebody else's, one module an engine and its extra."""
