"""Erasure of people (docs/decisions/0030): how a request is carried out, and the key of the hashes; a library."""
