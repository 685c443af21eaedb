"""`attributary acls`: compare the rights that each process needs with a cluster's access rules, and add them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.tables import plural, print_json, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.runtime.acls_admin import AclsAdmin
    from attributary.consumers.runtime.acls_plan import AclAction, Rule
    from attributary.schemas.access import Principals

acls_app = typer.Typer(no_args_is_help=True, help="Compare Kafka's access rules with what each process needs.")

_Principals = Annotated[
    Path | None,
    typer.Option(
        "--principals",
        help="YAML file with the principals: process to User:NAME, publishers (a list), subscribers (principal to the "
        "beginning of its groups). Default: User:attributary-PROCESS, after ATTRIBUTION_PREFIX.",
        dir_okay=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(acls_app, name="acls")


@acls_app.command("plan")
def show_plan(
    *,
    principals: _Principals = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when a right is missing or too much.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show which rights are missing in Kafka, which are too much, and change nothing.

    The rights come from the catalogue of topics: who reads and writes each, with which group and transactional id.
    ok: is there. add: is missing. too much: a principal of ours has a right that it does not need. denies: a rule takes
    a needed right away. foreign: somebody else reaches our topics, groups or ids. Needs DESCRIBE on the cluster.

    Example: attributary acls plan --check
    """
    from attributary.consumers.runtime.acls_plan import acls_differ

    _, actions = _planned(principals)
    if as_json:
        print_json([
            {"verb": str(each.verb), "principal": each.rule.principal, "operation": each.rule.operation,
             "resource": each.rule.kind, "name": each.rule.name, "prefix": each.rule.is_prefix, "host": each.rule.host}
            for each in actions
        ])  # fmt: skip
    else:
        _print(actions)
    if check and acls_differ(actions):
        raise typer.Exit(1)


@acls_app.command("apply")
def apply_plan(
    *,
    principals: _Principals = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Also remove what principals of ours have too much.")
    ] = False,
) -> None:
    """Add the rights that are missing in Kafka.

    A second run changes nothing. Rules of principals that are not ours are never touched, nor is a rule that
    denies. Needs DESCRIBE and ALTER on the cluster.

    Example: attributary acls apply --remove
    """
    from attributary.consumers.runtime.acls_plan import AclVerb

    admin, actions = _planned(principals)
    done = admin.apply(actions, remove=remove)
    _print(done)
    typer.echo(f"{plural(len(done), 'change')} made")
    left = [each for each in actions if each not in done and each.verb is not AclVerb.OK]
    if left:
        typer.echo("left as it is:")
        _print(left)


def _planned(principals: Path | None) -> tuple[AclsAdmin, list[AclAction]]:
    from attributary.cli.outcome import kafka_settings
    from attributary.consumers.runtime.acls_admin import AclsAdmin
    from attributary.consumers.runtime.acls_plan import plan_acls
    from attributary.schemas.access import OURS

    wanted = _wanted(principals)
    admin = AclsAdmin(kafka_settings())
    return admin, plan_acls(wanted, admin.describe(), OURS)


def _wanted(file: Path | None) -> list[Rule]:
    from attributary.consumers.runtime.acls_plan import Rule
    from attributary.schemas.access import rights
    from attributary.schemas.topics import catalogue, dead_letter_topics

    return [
        Rule(each.principal, each.kind, each.name, each.operation, each.is_prefix)
        for each in rights(catalogue(), dead_letter_topics(), _principals(file))
    ]


def _principals(file: Path | None) -> Principals:
    from attributary.schemas.access import Principals, processes
    from attributary.schemas.topics import catalogue
    from attributary.schemas.yaml_file import YamlFileError, read_yaml

    if file is None:
        return Principals()
    try:
        document = read_yaml(file)
    except YamlFileError as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--principals") from None
    try:
        return Principals.parse(document, processes(catalogue()))
    except ValueError as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--principals") from None


def _print(actions: Sequence[AclAction]) -> None:
    rows = [(str(each.verb), each.rule.principal, each.rule.text()) for each in actions]
    width = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for verb, principal, text in rows:
        typer.echo(safe(f"{verb:<{width[0]}}  {principal:<{width[1]}}  {text}"))
