"""The roll-up: sums over the newest results, kept right version by version, to the unit."""
