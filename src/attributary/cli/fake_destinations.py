"""`attributary fake-destinations`: stand-ins for the ad platforms on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fake-destinations")(_fake_destinations)


def _fake_destinations(
    meta_port: Annotated[int, typer.Option(help="Port of the Meta stand-in; 0: any.")] = 9801,
    ga4_port: Annotated[int, typer.Option(help="Port of the GA4 stand-in; 0: any.")] = 9802,
    tiktok_port: Annotated[int, typer.Option(help="Port of the TikTok stand-in; 0: any.")] = 9803,
    linkedin_port: Annotated[int, typer.Option(help="Port of the LinkedIn stand-in; 0: any.")] = 9804,
    x_port: Annotated[int, typer.Option(help="Port of the X stand-in; 0: any. Its pixel token is stand-in.")] = 9805,
    reddit_port: Annotated[int, typer.Option(help="Port of the Reddit stand-in; 0: any.")] = 9806,
    pinterest_port: Annotated[int, typer.Option(help="Port of the Pinterest stand-in; 0: any.")] = 9807,
    snap_port: Annotated[int, typer.Option(help="Port of the Snap stand-in; 0: any.")] = 9808,
    google_port: Annotated[
        int, typer.Option(help="Port of the Google stand-in; 0: any. POST /token gives tokens.")
    ] = 9809,
    microsoft_port: Annotated[int, typer.Option(help="Port of the Microsoft stand-in; 0: any.")] = 9810,
    bingads_port: Annotated[
        int,
        typer.Option(help="Port of the Bing Ads stand-in; 0: any. POST /token gives tokens."),
    ] = 9811,
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
    """Run stand-ins for all destinations, each on a port of its own, until Ctrl-C or SIGTERM.

    They check what the real ones check, and fail on order. Ask them what they received: GET /_admin/events. Make them
    fail: POST /_admin/faults with [{"kind": "transient", "times": 3}] or [{"kind": "http_429", "share": 0.05}]. Move
    their time: POST /_admin/clock with {"offset_seconds": 3600}.

    Example: attributary fake-destinations &
    META_BASE_URL=http://127.0.0.1:9801 META_PIXEL_ID=1 META_ACCESS_TOKEN=any attributary forwarder --destination meta
    """
    import contextlib
    import signal
    import threading

    from attributary.local.fakes import (
        BingAdsFake,
        Ga4Fake,
        GoogleFake,
        LinkedInFake,
        MetaFake,
        MicrosoftFake,
        OAuthFake,
        PinterestFake,
        RedditFake,
        SnapFake,
        TikTokFake,
        XFake,
    )
    from attributary.local.fakes.server import Application, FakeServer

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    meta, ga4 = MetaFake(tokens=meta_token or (), usage_step=usage_step), Ga4Fake(secrets=ga4_secret or ())
    others = {
        "tiktok": TikTokFake(),
        "linkedin": LinkedInFake(),
        "x": XFake(pixel_tokens=["stand-in"]),
        "reddit": RedditFake(),
        "pinterest": PinterestFake(),
        "snap": SnapFake(),
        "google": GoogleFake(OAuthFake()),
        "microsoft": MicrosoftFake(),
        "bingads": BingAdsFake(OAuthFake(rotates=True)),
    }
    ports = {
        "meta": meta_port,
        "ga4": ga4_port,
        "tiktok": tiktok_port,
        "linkedin": linkedin_port,
        "x": x_port,
        "reddit": reddit_port,
        "pinterest": pinterest_port,
        "snap": snap_port,
        "google": google_port,
        "microsoft": microsoft_port,
        "bingads": bingads_port,
    }
    fakes: dict[str, Application] = {"meta": meta, "ga4": ga4, **others}
    with contextlib.ExitStack() as stack:
        for name, fake in fakes.items():
            try:
                server = FakeServer(fake, ports[name])
            except OSError as error:
                typer.echo(f"--{name}-port: cannot listen ({error.strerror})", err=True)
                raise typer.Exit(69) from None
            stack.enter_context(server)
            print(f"{name.upper()}_BASE_URL={server.url}", flush=True)
            typer.echo(f"faults of {name}: {', '.join(sorted(fake.kinds))}", err=True)
        stop.wait()
    counts = [
        f"meta: {len(meta.received)} events in {meta.calls} calls",
        f"ga4: {ga4.counted} events in {ga4.calls} calls",
    ]
    counts += [f"{n}: {len(f.received.by_key)} events in {f.received.calls} calls" for n, f in others.items()]
    print("; ".join(counts))
