"""The delivery ledger of the forwarders."""
