"""`attributary jobs`: ask the trainer for work, and see how far it is."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.tables import count, print_json, print_table

if TYPE_CHECKING:
    from attributary.consumers.store.jobs import JobRow

_POLL_SECONDS = 0.5
_SEND_SECONDS = 15.0

_Tenant = Annotated[str, typer.Option("--tenant", help="Whose jobs.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON with all fields, instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group `jobs`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Work for the trainer: submit and cancel go through the topic attribution.jobs.v1 "
        "(KAFKA_BOOTSTRAP_SERVERS), status and list read Postgres (DATABASE_URL). A job is done once, however often "
        "its id is submitted. See docs/jobs.md.",
    )
    for command in (submit, status, cancel, list_):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="jobs")


def submit(
    kind: Annotated[str, typer.Argument(help="train, activate, rollback, backtest, analyze_journey or analyze_batch.")],
    *,
    tenant: _Tenant,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="NAME=VALUE, may be repeated; docs/jobs.md lists the names of each kind."),
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="Your own id: submitted twice it is done once. Default: a new one.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end and show the result; exit 1 if it did not succeed.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Ask for a job and print its id.

    Example: attributary jobs submit train --tenant acme -s model=markov -s from=2026-10-01 -s activate=true

    Example: attributary jobs submit analyze_batch --tenant acme -s platform=meta -s from=2026-11-01 --wait --json
    """
    from attributary.consumers.trainer.requests import PARAMETERS, JobParameterError, Parameters

    texts = _pairs(parameter or ())
    if kind not in PARAMETERS or kind == "cancel":
        known = ", ".join(sorted(set(PARAMETERS) - {"cancel"}))
        raise typer.BadParameter(f"must be one of {known}", param_hint="KIND")
    try:
        Parameters(kind, texts).check(tenant)
    except JobParameterError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    name = job_id or _new_id(kind)
    _publish(tenant, name, kind, texts)
    if wait:
        _show(_wait(tenant, name), as_json=as_json, ends=True)
    elif as_json:
        print_json({"tenant": tenant, "job_id": name})
    else:
        print(name)


def cancel(job_id: Annotated[str, typer.Argument(help="Id of the job to cancel.")], *, tenant: _Tenant) -> None:
    """Ask a job to end: at once if it waits, at its next step if it runs. What it was to write is not written.

    Example: attributary jobs cancel train-3f2a --tenant acme
    """
    _publish(tenant, _new_id("cancel"), "cancel", {"target_job_id": job_id})
    print(f"asked; see: attributary jobs status {job_id} --tenant {tenant}")


def status(
    job_id: Annotated[str, typer.Argument(help="Id of the job.")],
    *,
    tenant: _Tenant,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 1 if it did not succeed.")] = False,
    as_json: _Json = False,
) -> None:
    """Show how far a job is, and its result.

    Example: attributary jobs status train-3f2a --tenant acme --json
    """
    row = _wait(tenant, job_id) if wait else _read(tenant, job_id)
    if row is None:
        sys.stderr.write(f"attributary: tenant {tenant} has no job {job_id}; just submitted, it takes a moment\n")
        raise typer.Exit(exits.USAGE)
    _show(row, as_json=as_json, ends=wait)


def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant only.")] = None,
    state: Annotated[str | None, typer.Option(help="submitted, running, succeeded, failed or cancelled only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: _Json = False,
) -> None:
    """Show jobs, the newest first.

    Example: attributary jobs list --tenant acme --state running
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.jobs import list_jobs

    with database("attributary-jobs") as connection:
        rows = list_jobs(connection, tenant_id=tenant, state=state, limit=limit)
    if as_json:
        print_json([_fields(row) for row in rows])
        return
    cells = [
        (row.tenant_id, row.job_id, row.kind, row.state, _done(row), f"{row.submitted_at:%Y-%m-%d %H:%M:%S}",
         row.error or "")
        for row in rows
    ]  # fmt: skip
    print_table(("tenant", "job", "kind", "state", "done", "submitted (UTC)", "error"), cells, numbers=(4,))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint="--set")
        found[name] = value
    return found


def _new_id(kind: str) -> str:
    import uuid

    return f"{kind}-{uuid.uuid4().hex[:12]}"


def _publish(tenant: str, job_id: str, kind: str, parameters: Mapping[str, str]) -> None:
    """Put a job on the topic and wait for the brokers."""
    import getpass

    from attributary.cli.outcome import exit_codes
    from attributary.consumers.runtime.errors import Fatal
    from attributary.consumers.runtime.settings import KafkaSettings, load
    from attributary.consumers.wire import RegistrySettings, make_codec
    from attributary.producers.kafka import KafkaTransport
    from attributary.producers.transport import Message, Refused
    from attributary.schemas.rules import check_job
    from attributary.schemas.topics import JOBS, job_key

    record = {
        "tenant_id": tenant,
        "job_id": job_id,
        "kind": kind,
        "parameters": dict(parameters),
        "submitted_at": time.time_ns() // 1_000,
        "submitted_by": getpass.getuser(),
    }
    broken = check_job(record)
    if broken is not None:
        sys.stderr.write(f"attributary: {broken.field}: {broken.rule}\n")
        raise typer.Exit(exits.USAGE)
    failures: list[str] = []
    with exit_codes():
        value = make_codec(load(RegistrySettings)).encode("job", record)
        kafka = load(KafkaSettings).client_config()
        transport = KafkaTransport(kafka.pop("bootstrap.servers"), kafka)
        try:
            transport.send(
                Message(JOBS, job_key(tenant, job_id), value, [("content-type", b"application/avro")]),
                lambda error, _message: failures.append(str(error)) if error is not None else None,
            )
            if transport.flush(_SEND_SECONDS):
                transport.discard()
                failures[:] = ["Kafka does not answer"]
        except Refused as error:
            failures.append(str(error))
        finally:
            transport.close()
        if failures:
            raise Fatal(f"the job was not submitted: {failures[0]}", exits.DEPENDENCY_DOWN)


def _read(tenant: str, job_id: str) -> "JobRow | None":
    from attributary.cli.outcome import database
    from attributary.consumers.store.jobs import show_job

    with database("attributary-jobs") as connection:
        return show_job(connection, tenant, job_id)


def _wait(tenant: str, job_id: str) -> "JobRow":
    from attributary.consumers.store.jobs import FINISHED

    while (row := _read(tenant, job_id)) is None or row.state not in FINISHED:
        time.sleep(_POLL_SECONDS)
    return row


def _show(row: "JobRow", *, as_json: bool, ends: bool) -> None:
    if as_json:
        print_json(_fields(row))
    else:
        print(f"{row.job_id} ({row.kind} of {row.tenant_id}): {row.state}, {_done(row)} done")
        print(f"submitted {row.submitted_at:%Y-%m-%d %H:%M:%S} UTC by {row.submitted_by or 'nobody named'}")
        if row.error:
            print(f"error: {row.error}")
        if row.result is not None:
            print_json(row.result)
            _warn(row.result)
    if ends and row.state != "succeeded":
        raise typer.Exit(exits.FAILED)


def _warn(result: Mapping[str, Any]) -> None:
    """Say last, where it is seen, that a version that was trained is not good for crediting."""
    version_status = result.get("metadata", {}).get("diagnostics", {}).get("status", "ok")
    if version_status != "ok":
        print(f"status of the version: {version_status}")


def _done(row: "JobRow") -> str:
    return count(row.done) if row.total is None else f"{count(row.done)} of {count(row.total)}"


def _fields(row: "JobRow") -> dict[str, Any]:
    def text(moment: Any) -> str | None:
        return None if moment is None else str(moment.isoformat())

    return {
        "tenant": row.tenant_id,
        "job_id": row.job_id,
        "kind": row.kind,
        "parameters": dict(row.parameters),
        "state": row.state,
        "done": row.done,
        "total": row.total,
        "error": row.error,
        "result": None if row.result is None else dict(row.result),
        "attempts": row.attempts,
        "submitted_by": row.submitted_by,
        "submitted_at": text(row.submitted_at),
        "started_at": text(row.started_at),
        "finished_at": text(row.finished_at),
        "updated_at": text(row.updated_at),
    }
