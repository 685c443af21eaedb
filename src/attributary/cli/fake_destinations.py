"""`attributary fake-destinations`: stand-ins for Meta and GA4 on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fake-destinations")(_fake_destinations)


def _fake_destinations(
    meta_port: Annotated[int, typer.Option(help="Port of the Meta stand-in; 0: any.")] = 9801,
    ga4_port: Annotated[int, typer.Option(help="Port of the GA4 stand-in; 0: any.")] = 9802,
    meta_token: Annotated[
        list[str] | None, typer.Option(help="A good access token; may be given again. Default: any.")
    ] = None,
    ga4_secret: Annotated[
        list[str] | None, typer.Option(help="A good API secret; may be given again. Default: any.")
    ] = None,
    usage_step: Annotated[
        float, typer.Option(help="Percent of Meta's rate limit that a call uses; 0: no usage headers.")
    ] = 0.0,
) -> None:
    """Run stand-ins for Meta's Conversions API and GA4's Measurement Protocol, until Ctrl-C or SIGTERM.

    They check what the real ones check, and fail on order. Ask them what they received: GET /_admin/events. Make them
    fail: POST /_admin/faults with [{"kind": "transient", "times": 3}] or [{"kind": "http_429", "share": 0.05}]. Move
    their time: POST /_admin/clock with {"offset_seconds": 3600}.

    Example: attributary fake-destinations &
    META_BASE_URL=http://127.0.0.1:9801 META_PIXEL_ID=1 META_ACCESS_TOKEN=any attributary forwarder --destination meta
    """
    import signal
    import threading

    from attributary.local.fakes import Ga4Fake, MetaFake
    from attributary.local.fakes.ga4 import KINDS as GA4_KINDS
    from attributary.local.fakes.meta import KINDS as META_KINDS
    from attributary.local.fakes.server import FakeServer

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    meta = MetaFake(tokens=meta_token or (), usage_step=usage_step)
    ga4 = Ga4Fake(secrets=ga4_secret or ())
    try:
        servers = FakeServer(meta, meta_port), FakeServer(ga4, ga4_port)
    except OSError as error:
        typer.echo(f"--meta-port, --ga4-port: cannot listen ({error.strerror})", err=True)
        raise typer.Exit(69) from None
    with servers[0] as meta_server, servers[1] as ga4_server:
        print(f"META_BASE_URL={meta_server.url}")
        print(f"GA4_BASE_URL={ga4_server.url}", flush=True)
        typer.echo(f"faults of meta: {', '.join(sorted(META_KINDS))}", err=True)
        typer.echo(f"faults of ga4: {', '.join(sorted(GA4_KINDS))}", err=True)
        stop.wait()
    print(f"meta: {len(meta.received)} events in {meta.calls} calls; ga4: {ga4.counted} events in {ga4.calls} calls")
