"""The bytes of the page script as they are served: the source without comments, blank lines and indentation.

Contract: ``page_script()`` reads the source once. Only whole lines that are comments, blank lines and blanks at the
beginning of a line are left out, so the program is the same, line by line; the source has no text over several lines.
No build step and no tool is needed, and the tests in a browser run the served bytes.

The address with the digest never changes its content, so browsers keep it for a year; ``integrity`` is for the tag.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

SOURCE = "attributary.js"
_DIGEST_CHARACTERS = 12


class PageScript(NamedTuple):
    """The script as it is served.

    Attributes:
        content: the bytes.
        digest: of the content, for the versioned name.
        integrity: value of the attribute ``integrity`` (Subresource Integrity).
    """

    content: bytes
    digest: str
    integrity: str

    def versioned(self, name: str) -> str:
        """Return the name with the digest: ``attributary.0123456789ab.js`` of ``attributary.js``."""
        stem, dot, ending = name.rpartition(".")
        return f"{stem}.{self.digest}{dot}{ending}"


@cache
def page_script() -> PageScript:
    """Return the script."""
    content = served(files(__package__).joinpath(SOURCE).read_text("utf-8")).encode()
    return PageScript(
        content,
        hashlib.sha256(content).hexdigest()[:_DIGEST_CHARACTERS],
        "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode(),
    )


def served(source: str) -> str:
    """Return a source without comment lines, blank lines and indentation."""
    lines = (line.strip() for line in source.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def script_tag(origin: str, name: str, key: str, consent: str = "") -> str:
    """Return the HTML of the tag that loads the script, under its versioned name and with its integrity.

    Args:
        origin: scheme, host and prefix of the collector, for example ``https://shop.example/x``.
        name: the script's name.
        key: a write key.
        consent: value of ``data-consent``; empty: the attribute is left out.
    """
    script = page_script()
    said = f' data-consent="{consent}"' if consent else ""
    return (
        f'<script async src="{origin.rstrip("/")}/{script.versioned(name)}" integrity="{script.integrity}"\n'
        f'        crossorigin="anonymous" data-key="{key}"{said}></script>'
    )
