"""`attributary jobs`: submit jobs to the trainer, and follow them."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from attributary.cli import exits
from attributary.cli.job_tables import fields, print_job, print_jobs
from attributary.cli.outcome import say
from attributary.cli.tables import print_json, safe
from attributary.cli.tenant_option import AnyTenant, Tenant

if TYPE_CHECKING:
    from attributary.consumers.store.jobs.job_views import JobRow

_POLL_SECONDS = 0.5
_SEND_SECONDS = 15.0
_NOTICE_SECONDS = 15.0  # a trainer that runs takes a job within seconds
_JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_Json = Annotated[bool, typer.Option("--json", help="JSON with all fields, instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group `jobs`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Jobs of the trainer. submit and cancel write to the topic attribution.jobs.v1 (KAFKA_BOOTSTRAP_SERVERS), "
        "status and list read Postgres (DATABASE_URL). A job is done once, however often its id is submitted. See "
        "docs/how-to/jobs.md.",
    )
    for command in (submit, status, cancel, list_):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="jobs")


def submit(
    kind: Annotated[str, typer.Argument(help="train, activate, rollback, backtest, analyze_journey or analyze_batch.")],
    *,
    tenant: Tenant = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", help="NAME=VALUE, a parameter of the job; may be repeated. docs/how-to/jobs.md lists them."
        ),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="Your own id: submitted twice, the job is done once. Default: a new id.")
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for the end and show the result; exit code 1 if the job did not succeed."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Submit a job and print its id.

    Example: attributary jobs submit train --tenant acme -s model=markov -s closing=all -s activate=true

    Example: attributary jobs submit analyze_batch --tenant acme -s platform=meta -s from=2026-11-01 --wait --json
    """
    from attributary.consumers.trainer.job_requests import PARAMETERS, JobParameterError, Parameters

    texts = _pairs(parameter or ())
    if kind not in PARAMETERS or kind == "cancel":
        known = ", ".join(sorted(set(PARAMETERS) - {"cancel"}))
        raise typer.BadParameter(f"must be one of {known}", param_hint="KIND")
    try:
        Parameters(kind, texts, time.time_ns() // 1_000).check(tenant)
    except JobParameterError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    if job_id is not None and not _JOB_ID.fullmatch(job_id):
        raise typer.BadParameter("must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : -", param_hint="--id")
    name = job_id or _new_id(kind)
    if job_id is not None and (row := _looked_up(tenant, name)[1]) is not None:
        _check_same(row, kind, texts)
    if wait:
        _check_database()  # before anything is submitted
    _publish(tenant, name, kind, texts)
    if wait:
        row = _wait(tenant, name, is_submitted=True)
        assert row is not None  # noqa: S101  # only a job that nobody submitted is given up
        _check_same(row, kind, texts)
        _show(row, as_json=as_json, ends=True)
    elif as_json:
        print_json({"tenant": tenant, "job_id": name})
    else:
        print(name)


def cancel(job_id: Annotated[str, typer.Argument(help="Id of the job to cancel.")], *, tenant: Tenant = "") -> None:
    """Cancel a job: at once if it waits, within seconds if it runs. A cancelled job writes nothing.

    With DATABASE_URL it checks the job first: exit code 1 if the job has ended already.

    Example: attributary jobs cancel train-3f2a --tenant acme
    """
    from attributary.consumers.store.jobs.jobs import FINISHED

    is_known, row = _looked_up(tenant, job_id)
    if row is not None and row.state in FINISHED:
        _fail(f"job {job_id} of {tenant} has ended already: {row.state}", exits.FAILED)
    _publish(tenant, _new_id("cancel"), "cancel", {"target_job_id": job_id})
    if row is not None:
        print(f"Cancellation requested. See: attributary jobs status {safe(job_id)} --tenant {tenant}")
    elif is_known:
        print(
            f"Cancellation requested. No job {safe(job_id)} of {tenant} is stored; it will be cancelled if it arrives."
        )
    else:
        print("Cancellation requested. Set DATABASE_URL to check the state of the job.")


def status(
    job_id: Annotated[str, typer.Argument(help="Id of the job.")],
    *,
    tenant: Tenant = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit code 1 if the job did not succeed.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Show the progress of a job and its result.

    Example: attributary jobs status train-3f2a --tenant acme --json
    """
    row = _wait(tenant, job_id, is_submitted=False) if wait else _read(tenant, job_id)
    if row is None:
        _fail(
            f"tenant {tenant} has no job {job_id}. A trainer stores a new job when it reads it; "
            f"list the stored ones: attributary jobs list --tenant {tenant}",
            exits.FAILED,
        )
    _show(row, as_json=as_json, ends=wait)


def list_(
    tenant: AnyTenant = None,
    state: Annotated[
        str | None, typer.Option(help="This state only: submitted, running, succeeded, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs.")] = 50,
    as_json: _Json = False,
) -> None:
    """List jobs, the newest first.

    Example: attributary jobs list --tenant acme --state running
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.jobs.job_views import list_jobs
    from attributary.consumers.store.jobs.jobs import STATES

    if state is not None and state not in STATES:
        raise typer.BadParameter(f"must be one of {', '.join(STATES)}", param_hint="--state")
    with database("attributary-jobs", tenant=tenant) as connection:
        rows = list_jobs(connection, tenant_id=tenant, state=state, limit=limit)
    if as_json:
        print_json([fields(row) for row in rows])
    else:
        print_jobs(rows)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint="--set")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--set")
        found[name] = value
    return found


def _new_id(kind: str) -> str:
    import uuid

    return f"{kind}-{uuid.uuid4().hex[:12]}"


def _publish(tenant: str, job_id: str, kind: str, parameters: Mapping[str, str]) -> None:
    """Put a job on the topic and wait for the brokers."""
    import getpass

    from attributary.cli.outcome import exit_codes, kafka_settings
    from attributary.consumers.adapters.job_topic import JobNotSubmittedError, JobRuleError, JobTopic
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.runtime.errors import Fatal
    from attributary.consumers.runtime.settings import load
    from attributary.producers.kafka import KafkaTransport

    with exit_codes(), _client_lines() as lines:
        codec = make_codec(load(RegistrySettings))
        kafka = kafka_settings().client_config()
        topic = JobTopic(codec, KafkaTransport(kafka.pop("bootstrap.servers"), kafka))
        try:
            topic.submit(tenant, job_id, kind, parameters, submitted_by=getpass.getuser(), seconds=_SEND_SECONDS)
        except JobRuleError as error:
            _fail(str(error), exits.USAGE)
        except JobNotSubmittedError as error:
            why = next((f" ({line})" for line in reversed(lines)), "")
            raise Fatal(f"the job was not submitted: {error}{why}", exits.DEPENDENCY_DOWN) from None
        finally:
            topic.close()


class _Lines(logging.Handler):
    """Keeps the log lines of librdkafka, without thread and broker names."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage().rpartition("]: ")[2])


@contextmanager
def _client_lines() -> Iterator[list[str]]:
    """Collect the log lines of librdkafka instead of printing them: it repeats the same line many times."""
    logger, kept = logging.getLogger("attributary.producers"), _Lines()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)
        logger.propagate = before


def _read(tenant: str, job_id: str) -> JobRow | None:
    from attributary.cli.outcome import database
    from attributary.consumers.store.jobs.job_views import show_job

    with database("attributary-jobs") as connection:
        return show_job(connection, tenant, job_id)


def _check_database() -> None:
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.runtime.settings import DatabaseSettings, load

    with exit_codes():
        load(DatabaseSettings)


def _looked_up(tenant: str, job_id: str) -> tuple[bool, JobRow | None]:
    """Look for a job if Postgres is at hand. Return whether Postgres answered, and the job."""
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.settings import DatabaseSettings, load

    try:
        load(DatabaseSettings)
    except ConfigError:
        return False, None
    try:
        return True, _read(tenant, job_id)
    except typer.Exit:  # the reason is on standard error
        return False, None


def _check_same(row: JobRow, kind: str, texts: Mapping[str, str]) -> None:
    """Refuse a stored job of other content as the answer to a submission."""
    if (row.kind, dict(row.parameters)) == (kind, dict(texts)):
        return
    parameters = " ".join(f"{name}={value}" for name, value in sorted(row.parameters.items()))
    _fail(
        f"id {row.job_id} of {row.tenant_id} is taken by another job: {row.kind} {parameters} ({row.state}); "
        "your job is not done; choose another id",
        exits.USAGE,
    )


def _fail(why: str, code: int) -> NoReturn:
    say(why)
    raise typer.Exit(code)


def _wait(tenant: str, job_id: str, *, is_submitted: bool) -> JobRow | None:
    """Wait for the end of a job; None: nobody knows it. Says once when no trainer takes a submitted one."""
    from attributary.consumers.store.jobs.jobs import FINISHED

    noticed = time.monotonic() + _NOTICE_SECONDS
    while (row := _read(tenant, job_id)) is None or row.state not in FINISHED:
        if row is None and time.monotonic() > noticed:
            if not is_submitted:
                return None
            say(
                f"no trainer has taken job {job_id} for {_NOTICE_SECONDS:.0f} s; still waiting. Is one running? "
                "See: attributary status"
            )
            noticed = math.inf
        time.sleep(_POLL_SECONDS)
    return row


def _show(row: JobRow, *, as_json: bool, ends: bool) -> None:
    if as_json:
        print_json(fields(row))
    else:
        print_job(row)
    if ends and row.state != "succeeded":
        raise typer.Exit(exits.FAILED)
