"""The page script: a plain script for web pages that sends landings and conversions to the collector.

``attributary.js`` is the source, ``attributary.d.ts`` its types, ``script`` the bytes that are served, ``routes`` the
addresses. How pages use it: docs/how-to/web-page.md.
"""

from __future__ import annotations
