"""The official clients' side of `forwarder_official_clients`; its environment has them, and nothing of ours.

    python forwarder_official_peer.py google http://127.0.0.1:9809    # cases on standard input, results on output
    python forwarder_official_peer.py formatter
    python forwarder_official_peer.py microsoft

Contract: reads one JSON document and prints one. What a client refuses or raises is a result, never a traceback.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

_SCHEMA = "{http://www.w3.org/2001/XMLSchema}"
_OF_MICROSOFT = ("OfflineConversion", "OfflineConversionAdjustment", "OnlineConversionAdjustment", "BatchError")


def google(cases: dict[str, Any], url: str) -> dict[str, Any]:
    """Send bodies by Google's client; give what it read of each answer, or how it failed."""
    api = importlib.import_module("google.ads.datamanager_v1")
    errors = importlib.import_module("google.api_core.exceptions")
    parse_error = importlib.import_module("google.protobuf.json_format").ParseError
    rest = importlib.import_module("google.ads.datamanager_v1.services.ingestion_service.transports.rest")
    oauth = importlib.import_module("google.oauth2.credentials")
    host = url.removeprefix("http://")
    transport = rest.IngestionServiceRestTransport(
        host=host, url_scheme="http", credentials=oauth.Credentials("any-token")
    )
    client = api.IngestionServiceClient(transport=transport)
    found: dict[str, Any] = {}
    for name, body in cases.items():
        try:
            # Unknown fields and wrong types of our bodies are refused here, by Google's own schema.
            request = api.IngestEventsRequest.from_json(json.dumps(body))
            answer = client.ingest_events(request, retry=None)
            found[name] = {"request_id": answer.request_id}
            if answer.request_id:
                status = client.retrieve_request_status(request={"request_id": answer.request_id}, retry=None)
                found[name]["statuses"] = [each.request_status.name for each in status.request_status_per_destination]
        except errors.GoogleAPICallError as error:
            fields = [violation for detail in error.details for violation in detail.get("fieldViolations", ())]
            found[name] = {"error": error.code, "fields": [[each["field"], each["reason"]] for each in fields]}
        except parse_error as error:
            found[name] = {"parse": str(error)[:300]}
    reasons = [*api.ErrorReason.__members__]
    return {"answers": found, "reasons": reasons, "fields": [*api.Event.meta.fields]}


def formatter(cases: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Hash texts as Google's own utility does; an error's name stands for what it refuses."""
    made = importlib.import_module("google.ads.datamanager_util").Formatter()
    encoding = importlib.import_module("google.ads.datamanager_util.format").Encoding.HEX
    found: dict[str, dict[str, str]] = {}
    for kind, texts in cases.items():
        for text in texts:
            try:
                digest = getattr(made, f"process_{kind}")(text, encoding)
            except (TypeError, ValueError) as error:
                digest = type(error).__name__
            found.setdefault(kind, {})[text] = digest
    return found


def microsoft() -> dict[str, list[str]]:
    """Give the fields of Microsoft's types as the description in its client has them."""
    folder = Path(str(importlib.import_module("bingads").__file__)).parent
    text = (folder / "v13" / "proxies" / "production" / "campaignmanagement_service.xml").read_text("utf-8")
    tree = ET.fromstring(text)  # noqa: S314  # of an installed package
    return {
        str(kind.get("name")): [str(each.get("name")) for each in kind.iter(f"{_SCHEMA}element")]
        for kind in tree.iter(f"{_SCHEMA}complexType")
        if kind.get("name") in _OF_MICROSOFT
    }


def main(what: str, url: str = "") -> None:
    """Answer one question."""
    given = {} if what == "microsoft" else json.load(sys.stdin)
    found = {"google": lambda: google(given, url), "formatter": lambda: formatter(given), "microsoft": microsoft}[
        what
    ]()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
