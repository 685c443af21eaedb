"""`attributary topics`: compare the catalogue of topics with a cluster, and make the cluster follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.tables import plural, print_json

if TYPE_CHECKING:
    from attributary.consumers.runtime.topics_admin import Cluster, TopicsAdmin
    from attributary.consumers.runtime.topics_plan import Action, WantedTopic

topics_app = typer.Typer(no_args_is_help=True, help="Compare the topics with a cluster, and create or change them.")

_Replicas = Annotated[
    int | None, typer.Option("--replication-factor", min=1, help="Of new topics. Default: the brokers' own default.")
]
_Partitions = Annotated[
    int | None, typer.Option("--partitions-override", min=1, help="So many partitions in every topic; small clusters.")
]
_Production = Annotated[
    bool | None,
    typer.Option(
        "--production/--no-production",
        help="Demand three replicas of every topic. Default: ATTRIBUTION_ENVIRONMENT is production.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(topics_app, name="topics")


@topics_app.command("plan")
def show_plan(
    *,
    replication_factor: _Replicas = None,
    partitions_override: _Partitions = None,
    production: _Production = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when anything differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show what `apply` would do with the topics of Kafka, and change nothing.

    The catalogue is schemas/topics.yaml: partitions, retention, cleanup policy, and a dead-letter topic
    (TOPIC.GROUP.dlq) for every group that reads a topic. Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names. In
    production a topic with fewer than three replicas is a difference, too.

    Example: attributary topics plan --check
    """
    from attributary.consumers.runtime.topics_plan import differs

    _, actions, _ = _planned(replication_factor, partitions_override, is_production=_is_production(production))
    if as_json:
        print_json([asdict(action) for action in actions])
    else:
        _print(actions)
    if check and differs(actions):
        raise typer.Exit(1)


@topics_app.command("apply")
def apply_plan(
    *,
    replication_factor: _Replicas = None,
    partitions_override: _Partitions = None,
    production: _Production = None,
    add_partitions: Annotated[
        bool, typer.Option("--add-partitions", help="Also add partitions: keys move to other partitions.")
    ] = False,
) -> None:
    """Create the topics that are missing and change the settings that differ.

    Nothing is deleted. Partitions are added only with --add-partitions, because keys then move: results stay right,
    but for a while one person's events are spread over two partitions. From three replicas on, min.insync.replicas
    is 2, so that the loss of a broker loses nothing. A replica that lacks acknowledged records never becomes the
    leader. In production topics with fewer than three replicas are refused: exit code 78, nothing is changed. So are
    topics of one stage that would have different numbers of partitions.

    Example: attributary topics apply --replication-factor 3
    """
    from attributary.consumers.runtime.topics_plan import unequal

    is_production = _is_production(production)
    admin, actions, cluster = _planned(replication_factor, partitions_override, is_production=is_production)
    if is_production:
        _refuse_few_replicas(actions)
    _refuse_unequal(unequal(_wanted(), cluster.topics, partitions=partitions_override, add_partitions=add_partitions))
    done = admin.apply(actions, add_partitions=add_partitions)
    _print(done)
    typer.echo(f"{plural(len(done), 'change')} made")
    left = [action for action in actions if action not in done and action.verb not in {"ok", "create", "change config"}]
    if left:
        typer.echo("left as it is:")
        _print(left)


def _wanted() -> list[WantedTopic]:
    from attributary.consumers.runtime.topics_plan import WantedTopic
    from attributary.schemas.topics import catalogue, dead_letter_topics

    topics = (*catalogue(), *dead_letter_topics())
    return [WantedTopic(topic.name, topic.partitions, dict(topic.config), topic.groups) for topic in topics]


def _is_production(production: bool | None) -> bool:
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.runtime.settings import ProcessSettings, load

    if production is not None:
        return production
    with exit_codes():
        return load(ProcessSettings).environment == "production"


def _refuse_few_replicas(actions: Iterable[Action]) -> None:
    from attributary.consumers.runtime.errors import EXIT_CONFIG
    from attributary.consumers.runtime.topics_plan import PRODUCTION_REPLICAS, Verb

    few = [
        action
        for action in actions
        if action.verb is Verb.TOO_FEW_REPLICAS
        or (action.verb is Verb.CREATE and action.replicas < PRODUCTION_REPLICAS)
    ]
    if few:
        _print(few)
        typer.echo(
            f"attributary topics: {len(few)} topics have or would get fewer than {PRODUCTION_REPLICAS} replicas; "
            "nothing was changed. Give --replication-factor 3 for new ones, add replicas to the others, or, where the "
            "loss of a disk may lose events, --no-production.",
            err=True,
        )
        raise typer.Exit(EXIT_CONFIG)


def _refuse_unequal(actions: Sequence[Action]) -> None:
    from attributary.consumers.runtime.errors import EXIT_CONFIG

    if actions:
        _print(actions)
        typer.echo(
            "attributary topics: the topics of a group would have different numbers of partitions, and its stage would "
            "not start; nothing was changed.",
            err=True,
        )
        raise typer.Exit(EXIT_CONFIG)


def _planned(
    replicas: int | None, partitions: int | None, *, is_production: bool
) -> tuple[TopicsAdmin, list[Action], Cluster]:
    from attributary.cli.outcome import kafka_settings
    from attributary.consumers.runtime.topics_admin import TopicsAdmin
    from attributary.consumers.runtime.topics_plan import PRODUCTION_REPLICAS, plan

    wanted = _wanted()
    admin = TopicsAdmin(kafka_settings())
    cluster = admin.describe(topic.name for topic in wanted)
    factor = _factor(replicas, cluster)
    replicas_min = PRODUCTION_REPLICAS if is_production else 1
    actions = plan(wanted, cluster.topics, replicas=factor, partitions=partitions, replicas_min=replicas_min)
    return admin, actions, cluster


def _factor(replicas: int | None, cluster: Cluster) -> int:
    if replicas is not None and replicas > cluster.brokers:
        raise typer.BadParameter(f"the cluster has {cluster.brokers} brokers", param_hint="--replication-factor")
    return cluster.default_replicas if replicas is None else replicas


def _print(actions: Iterable[Action]) -> None:
    rows = [(str(action.verb), action.topic, action.detail) for action in actions]
    width = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for verb, topic, detail in rows:
        typer.echo(f"{verb:<{width[0]}}  {topic:<{width[1]}}  {detail}")
