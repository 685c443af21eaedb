"""Match keys of people, under the rules of Meta and Google.

Contract: `hash_user_data` is the one function that producers and the forwarder call; the modules below it hold the
rules of each family. Importing this package needs phonenumberslite and idna, nothing else.
"""

from __future__ import annotations

from attributary.producers.matching.fbc import build_fbc, build_fbp, is_fbc, is_fbp, renewed_fbc
from attributary.producers.matching.user_data import hash_user_data, hash_user_data_with_remarks, usable_hashes

__all__ = [
    "build_fbc",
    "build_fbp",
    "hash_user_data",
    "hash_user_data_with_remarks",
    "is_fbc",
    "is_fbp",
    "renewed_fbc",
    "usable_hashes",
]
