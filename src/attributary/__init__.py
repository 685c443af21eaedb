"""Attributary: marketing touchpoints and conversions in, attribution results out, every unit of revenue accounted for.

The packages below this one are links to the folders at the top of the repository; the wheel holds them as
``attributary.attribution_core``, ``attributary.schemas``, ``attributary.producers`` and ``attributary.consumers``.
Importing this package imports none of them, so that a publishing service pays only for what it uses.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("attributary")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
