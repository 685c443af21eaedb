"""Ask Meta's official SDK for its hashes; run by hand, in a virtual environment of its own with facebook-business.

    python tests/forwarder/forwarder_sdk_oracle.py tests/forwarder/golden/meta_sdk.json

Reads the cases of the file, writes what the SDK makes of each: a hash, "" or the error that it raises. Our own side of
a case (`ours`, `why`) is kept: `why` says why it is meant to differ, and is listed in docs/how-to/forward.md.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path


def main(path: Path) -> None:
    normalise = importlib.import_module("facebook_business.adobjects.serverside.normalize").Normalize
    document = json.loads(path.read_text("utf-8"))
    for case in document["cases"]:
        if case["key"] == "external_id":  # the SDK sends it as it is
            case["sdk"] = case["value"]
            continue
        try:
            case["sdk"] = normalise.normalize_field(case["key"], case["value"]) or ""
        except (TypeError, ValueError) as error:
            case["sdk"] = type(error).__name__
    document["sdk"] = f"facebook-business {importlib.metadata.version('facebook-business')}"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
