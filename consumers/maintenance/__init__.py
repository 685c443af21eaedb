"""Verify, rebuild, restore, replay and recompute by the stages' own code. The command line shows them."""
