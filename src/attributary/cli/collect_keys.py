"""`attributary collect keys new|list|revoke` and `collect link`: keys of the HTTP collector, signed click targets."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.cli import exits
from attributary.cli.outcome import say
from attributary.cli.tables import print_json
from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.producers.collector.keys import Key

_DAY = 86_400
_MAX_DAYS = 36_500  # a century
_File = Annotated[
    Path, typer.Option("--file", envvar="COLLECT_KEYS_FILE", help="The file of keys; made if it is missing.")
]


def register(group: typer.Typer) -> None:
    """Add the group `keys` and the command `link`."""
    keys = typer.Typer(no_args_is_help=True, help="Write keys for pages (wk_) and secret keys for servers (sk_).")
    keys.command("new")(_new)
    keys.command("list")(_list)
    keys.command("revoke")(_revoke)
    group.add_typer(keys, name="keys")
    group.command("link")(_link)


def _new(
    file: _File,
    *,
    tenant: Tenant = "",
    kind: Annotated[Literal["wk", "sk"], typer.Option(help="wk: for pages, public; sk: for servers, secret.")] = "wk",
    label: Annotated[str, typer.Option(help="What people call the key.")] = "",
    origin: Annotated[
        list[str] | None, typer.Option(help="A page that may use the key, https://shop.example; may be repeated.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="event, conversion, read, jobs or erase; may be repeated. Default: event, conversion."),
    ] = None,
    redirect_host: Annotated[
        list[str] | None, typer.Option(help="A host to which click redirects may lead; may be repeated.")
    ] = None,
    consent: Annotated[
        list[str] | None,
        typer.Option(help="What holds where a record says nothing: ad_storage=true; may be repeated."),
    ] = None,
    browser_values: Annotated[
        bool, typer.Option("--browser-values", help="Let a write key name the value of a conversion.")
    ] = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Requests a second, in each process.")] = None,
    replaces: Annotated[
        str | None, typer.Option(help="Id of the key that this one replaces; it ends after --overlap-days.")
    ] = None,
    overlap_days: Annotated[float, typer.Option(min=0, help="How long both keys are in force.")] = 7.0,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    Example: attributary collect keys new --tenant acme --origin https://shop.example

    Example: attributary collect keys new --tenant acme --kind sk --label "order service"
    """
    from attributary.producers.collector.keys import KeysError, new_key, revoked

    now = int(time.time())
    overlap = _seconds(overlap_days, "--overlap-days")
    if kind == "wk" and not origin:
        say("no --origin: no page may use the key; calls without an Origin header (mails, apps) may")
    with _editing(file) as keys:
        others: dict[str, Any] = {
            "label": label,
            "origins": origin or [],
            "redirect_hosts": redirect_host or [],
            "browser_values": browser_values,
            "consent": dict(map(_consent, consent or [])),
            "requests_per_second": rate,
        }
        token, key = new_key(kind, tenant, now=now, scopes=scope or (), **others)
        if replaces is not None:
            place = _place(keys, replaces)
            if (keys[place].kind, keys[place].tenant) != (kind, tenant):
                raise KeysError(f"key {replaces}: is of another tenant or kind")
            keys[place] = revoked(keys[place], at=now + overlap)
        keys.append(key)
    typer.echo(token)
    say(f"key {key.key_id} of tenant {tenant}: keep it now, it cannot be shown again")


def _list(
    file: _File,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """List the keys: id, kind, tenant, scopes, state, label. No key can be shown.

    Example: attributary collect keys list --file keys.json
    """
    with _told(file):
        from attributary.producers.collector.keys import load_keys

        now = time.time()
        keys = [
            (key.key_id, key.kind, key.tenant, ",".join(key.scopes), _state(key, now), key.label)
            for key in load_keys(file)
        ]
        if as_json:
            names = ("key_id", "kind", "tenant", "scopes", "state", "label")
            print_json([dict(zip(names, parts, strict=True)) for parts in keys])
            return
        for parts in keys:
            typer.echo("\t".join(part if part.isprintable() else repr(part) for part in parts))


def _revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `list` shows it.")],
    file: _File,
    *,
    after_days: Annotated[float, typer.Option(min=0, help="Let it end so much later instead of at once.")] = 0.0,
) -> None:
    """End a key. Running collectors learn it within two seconds.

    Example: attributary collect keys revoke 1f3a9c42 --after-days 7
    """
    from attributary.producers.collector.keys import revoked

    after = _seconds(after_days, "--after-days")
    if not file.exists():
        say(f"{file}: there is no such file of keys (--file, COLLECT_KEYS_FILE)")
        raise typer.Exit(exits.USAGE)
    with _editing(file) as keys:
        place = _place(keys, key_id)
        keys[place] = revoked(keys[place], at=int(time.time()) + after)
    typer.echo(f"key {key_id}: {_state(keys[place], time.time())}")


def _link(
    to: Annotated[str, typer.Option(help="Target of the click, an absolute http or https URL.")],
    secret: Annotated[
        str, typer.Option(envvar="COLLECT_REDIRECT_SECRET", help="Key of the signature, as the collector has it.")
    ],
    *,
    days: Annotated[float, typer.Option(min=0, help="How long the link works.")] = 365.0,
) -> None:
    """Print the query of a click redirect with a signed target; put `k=<write key>` before it.

    Example: attributary collect link --to "https://partner.example/offer?utm_source=newsletter&utm_medium=email"
    """
    from urllib.parse import urlencode

    from attributary.cli.collect import need_extra

    lasts = _seconds(days, "--days")
    need_extra()
    from attributary.producers.collector.answers import Refusal
    from attributary.producers.collector.pixel import parse_target, sign_target

    try:
        parse_target(to)
    except Refusal:
        say("--to: must be an absolute http or https URL without spaces, user or control characters")
        raise typer.Exit(exits.USAGE) from None
    expires_at = int(time.time()) + lasts
    typer.echo(urlencode({"to": to, "exp": expires_at, "sig": sign_target(to, expires_at, secret)}))


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with the file or an option."""
    from attributary.producers.collector.keys import KeysError

    try:
        yield
    except KeysError as error:
        say(str(error))
        raise typer.Exit(exits.USAGE) from None
    except OSError as error:
        say(f"{file}: the file of keys (--file, COLLECT_KEYS_FILE) cannot be written: {error.strerror}")
        raise typer.Exit(exits.CONFIG) from None


@contextmanager
def _editing(file: Path) -> Iterator[list[Key]]:
    from attributary.producers.collector.keys import edit_keys

    if not file.name:
        raise typer.BadParameter("must name a file", param_hint="--file")
    with _told(file), edit_keys(file) as keys:
        yield keys


def _seconds(days: float, option: str) -> int:
    if not 0 <= days <= _MAX_DAYS:
        raise typer.BadParameter(f"must be from 0 to {_MAX_DAYS:,} days", param_hint=option)
    return int(days * _DAY)


def _place(keys: list[Key], key_id: str) -> int:
    from attributary.producers.collector.keys import KeysError

    found = next((place for place, key in enumerate(keys) if key.key_id == key_id), None)
    if found is None:
        raise KeysError(f"no key has the id {key_id[:40]!r}; see: attributary collect keys list")
    return found


def _consent(text: str) -> tuple[str, bool]:
    from attributary.producers.collector.keys import KeysError

    purpose, _, given = text.partition("=")
    if not purpose or given not in {"true", "false"}:
        raise KeysError("--consent: must be like ad_storage=true")
    return purpose, given == "true"


def _state(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "in force"
    return f"{'in force until' if key.expires_at > now else 'ended'} {_day(key.expires_at)}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
