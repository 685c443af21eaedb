"""An order of a file becomes records, under a plan.

Invariant: the records depend on the rows, their lines and the plan only, so the same file gives the same records with
the same event ids. A file that names no event ids gets them from the order number, else from the row's content, its
line and the kind of record: two equal rows of one file are two events, the same row of the same file imported twice is
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from attributary.producers.errors import InvalidRecord
from attributary.producers.importer import cells, columns
from attributary.producers.importer.amounts import amount_reader
from attributary.producers.importer.conditions import holds
from attributary.producers.importer.item_lists import ItemLists
from attributary.producers.importer.orders import Order, grouped, single_rows
from attributary.producers.importer.outcomes import NoTouchpoint, NotWanted, RowRefused
from attributary.producers.importer.plan import ImportPlan
from attributary.producers.importer.refunds import restatement
from attributary.producers.importer.rows import Row
from attributary.producers.importer.worth import check_stated, items_differ, value_micros
from attributary.producers.landing import UTM_FIELDS, is_robot, parse_landing, touchpoint_from_landing
from attributary.schemas.limits import RuleViolation
from attributary.schemas.schema_catalog import defaults

__all__ = ["Mapped", "NoTouchpoint", "NotWanted", "RowMapper", "RowRefused", "row_event_id"]

_FINGERPRINT_BYTES = 16
_MICROS = "value_micros"
_SHOWN = frozenset(
    {
        "occurred_at", "linked_at", "value", "value_micros", "currency", "kind", "conversion_type", "channel",
        "platform", "interaction", "items", "items_total", "refunded", "refunded_at", "action_source", "is_bot",
        "opt_out", "tenant_id",
    }
)  # fmt: skip
"""Fields of which a cell may be shown: none of them names a person."""


class Mapped(NamedTuple):
    """What an order became."""

    records: list[dict[str, Any]]
    remarks: list[str]  # what is odd about it, without a value of the file
    refused: RowRefused | None = None  # it has an id, but may not be published; a repeat of another is said as such


class RowMapper:
    """Turns the rows of one file into records.

    Args:
        plan: which column becomes which field, and how.
        columns: the columns of the file, when it names them all at its start.

    Raises:
        PlanError: the plan names a column that the file does not have, or a constant that its field cannot be.
    """

    def __init__(self, plan: ImportPlan, file_columns: Sequence[str] | None = None) -> None:
        self._plan = plan
        self._columns = file_columns
        self._defaults = dict(defaults(plan.kind))
        steps = columns.steps(plan, file_columns)
        conditions = (each.column for each in (*plan.where, *plan.refunded_when))
        beside = (plan.group_by, plan.refunded, plan.refunded_at, *plan.items_total, *plan.event_id_of, *conditions)
        columns.require(file_columns, filter(None, beside))
        self._item_lists = ItemLists(plan, file_columns)
        self._beside = frozenset(filter(None, beside)) | frozenset(self._item_lists.columns)
        self._steps = [step for step in steps if step.outer != "items" or not step.inner]
        self._item_steps = [step for step in steps if step.outer == "items" and step.inner]
        self._constants = columns.constants(plan)
        self._amount = amount_reader(plan)
        self._instant = cells.instant_reader(plan)

    def unused_columns(self) -> list[str]:
        """Return the columns of the file from which nothing is taken."""
        steps = (*self._steps, *self._item_steps)
        named = {column for step in steps for column in step.columns} | self._beside
        return sorted(set(self._columns or ()) - named - {column.partition(".")[0] for column in named})

    def given_fields(self) -> set[str]:
        """Return the fields that columns of the file give; without a header all that may be."""
        return {step.outer for step in (*self._steps, *self._item_steps)}

    @property
    def has_header(self) -> bool:
        """Whether the file names all its columns at its start."""
        return self._columns is not None

    @property
    def names_event_ids(self) -> bool:
        """Whether the file says the event ids itself."""
        return any(step.name == "event_id" for step in self._steps)

    @property
    def reads_referrers(self) -> bool:
        """Whether channels are read from landing pages and referrers."""
        names = {step.name for step in self._steps}
        return self._plan.kind == "touchpoint" and {"landing_url", "referrer"} <= names and "channel" not in names

    @property
    def key_column(self) -> str | None:
        """The column of the order number, under a plan that groups."""
        return self._plan.group_by

    @property
    def order_column(self) -> str | None:
        """The column of the order number, under a plan that does not group and where no row is a correction."""
        names = {step.name: step.columns[0] for step in self._steps}
        if self._plan.group_by is not None or self._plan.kind != "conversion" or "kind" in names:
            return None
        return names.get("event_id", names.get("order_id"))

    def orders(self, rows: Iterator[Row]) -> Iterator[Order]:
        """Return the rows of a file as orders; without grouping each row for itself."""
        if self._plan.group_by is None:
            return single_rows(rows)
        return grouped(rows, self.read_key, self.is_continuation)

    def read_key(self, row: Row) -> str:
        """Return the order number of a row, under a plan that groups; empty where it names none."""
        found = columns.cell(row.cells, self._plan.group_by or "")
        return "" if cells.is_missing(found) or isinstance(found, dict | list) else str(found).strip()

    def is_continuation(self, row: Row) -> bool:
        """Tell whether a row without an order number holds nothing but a line of the order above it."""
        return any(step.find(row)[1] is not None for step in self._item_steps) and all(
            step.find(row)[1] is None for step in self._steps
        )

    def column_of(self, field: str) -> str | None:
        """Return the column that a field of a record is read from, where there is one."""
        outer, _ = columns.parts(field)
        for wanted in (field, *(("value",) if outer == _MICROS else ()), outer):
            for step in (*self._steps, *self._item_steps):
                there = self._columns is None or step.columns[0].partition(".")[0] in self._columns
                if there and wanted in {step.name, step.outer}:
                    return step.columns[0] if self._columns is not None or step.name in self._plan.columns else None
        return None

    def shown_cell(self, row: Row, column: str | None, field: str) -> str | None:
        """Return a cell as an example; None for what may name a person, and where there is nothing to show."""
        found = None if column is None or columns.parts(field)[0] not in _SHOWN else columns.cell(row.cells, column)
        return None if found is None or isinstance(found, dict | list) else str(found)

    def record(self, row: Row) -> dict[str, Any]:
        """Return the record of a single row; see ``mapped``."""
        found = self.mapped(Order((row,)))
        if found.refused is not None:
            raise found.refused
        return found.records[0]

    def mapped(self, order: Order) -> Mapped:
        """Return the records of an order.

        Raises:
            RowRefused: names the field, the column and the rule.
            NoTouchpoint: the row is a page view inside a visit.
            NotWanted: the plan leaves it out.
        """
        rows, key = order.rows, order.key
        if (fault := order.fault or rows[0].fault) is not None:
            raise RowRefused("(row)", fault, self._plan.group_by if order.fault else None)
        if self._plan.where and not holds(self._plan.where, lambda column: _first(rows, column)):
            raise NotWanted
        given = self._given(rows)
        refused = None
        if self._plan.kind == "touchpoint":
            _read_landing(given, self._plan.own_domains)
        elif self._plan.kind == "conversion":
            refused = self._read_worth(given, rows)
        if key is not None:
            given = {"event_id": key, "order_id": key, **given}
        if "event_id" not in given:
            given["event_id"] = self._event_id(rows[0])
        record = {**self._defaults, **given}
        restated = self._restatement(record, rows) if refused is None else None
        return Mapped([record, restated] if restated else [record], self._remarks(given, rows), refused)

    def _event_id(self, row: Row) -> str:
        """Return the event id of a row that names none: of the columns that the plan says, else of the whole row."""
        names = self._plan.event_id_of
        if not names:
            return row_event_id(self._plan.kind, row)
        return row_event_id(self._plan.kind, Row(0, {name: columns.cell(row.cells, name) for name in names}))

    def _restatement(self, record: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any] | None:
        """Return what is left of an order of which something was refunded."""
        plan = self._plan
        if not (plan.refunded or plan.refunded_when) or record["kind"] != "conversion":
            return None
        column = plan.refunded
        cell = None if column is None else _first(rows, column)
        try:
            if not cells.is_missing(cell):
                amount = self._amount(cell)
            elif plan.refunded_when and holds(plan.refunded_when, lambda name: _first(rows, name)):
                amount = None
            else:
                return None
            when = None if plan.refunded_at is None else _first(rows, plan.refunded_at)
        except ValueError as error:
            raise RowRefused("refunded", str(error), column) from None
        try:
            refunded_at = None if cells.is_missing(when) else self._instant(when)
        except ValueError as error:
            raise RowRefused("refunded_at", str(error), plan.refunded_at) from None
        try:
            return restatement(record, amount, refunded_at)
        except ValueError as error:
            raise RowRefused("refunded", str(error), column) from None

    def _given(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what the rows and the constants say."""
        given = self._given_of(rows[0]) if len(rows) == 1 else self._given_together(rows)
        items = [item for row in rows if (item := self._item(row))] if self._item_steps else []
        if self._item_lists.columns:
            items += self._item_lists.items(rows)
        if items:
            given["items"] = [*given.get("items", ()), *items]
        for outer, inner, value in self._constants:
            if (inner not in given.get(outer, ())) if inner else (outer not in given):
                _put(given, outer, inner, value)
        return given

    def _given_of(self, row: Row) -> dict[str, Any]:
        """Return what a single row says: the way of most files, and the hot path."""
        given: dict[str, Any] = {}
        there = row.cells
        for step in self._steps:
            column = step.columns[0]
            cell = there.get(column)
            if cell is None or cell == "" or (isinstance(cell, str) and (cell.isspace() or cell in step.empty)):
                if len(step.columns) == 1 and "." not in column:
                    continue
                column, cell = step.find(row)
                if cell is None:
                    continue
            try:
                value = step.read(cell)
            except ValueError as error:
                raise RowRefused(step.name, str(error), column, row.line) from None
            if step.inner:
                given.setdefault(step.outer, {})[step.inner] = value
            else:
                given[step.outer] = value
        return given

    def _given_together(self, rows: Sequence[Row]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for step in self._steps:
            value = self._value(step, rows)
            if value is not None:
                _put(given, step.outer, step.inner, value)
        return given

    def _value(self, step: columns.Step, rows: Sequence[Row]) -> Any:
        """Return the value of a field: the first that the rows of an order state, and none may state another."""
        found: Any = None
        first_line = 0
        for row in rows:
            column, cell = step.find(row)
            if cell is None:
                continue
            value = _read(step, column, cell, row)
            if found is None:
                found, first_line = value, row.line
            elif step.name == "value" and self._plan.sum_values:
                found += value
            elif found != value:
                more = "; --sum-values adds them up" if step.name == "value" else ""
                rule = f"is another one than that of line {first_line} of the same order{more}"
                raise RowRefused(step.name, rule, column, row.line)
        return found

    def _item(self, row: Row) -> dict[str, Any] | None:
        """Return the line of the order that a row holds; None where it holds none, or nothing of it was bought."""
        item: dict[str, Any] = {}
        for step in self._item_steps:
            column, cell = step.find(row)
            if cell is not None:
                item["price_micros" if step.inner == "price" else step.inner] = _read(step, column, cell, row)
        if not item or item.get("quantity") == 0:
            return None
        if "item_id" not in item:
            raise RowRefused("items.item_id", "must be set", self.column_of("items.item_id"), row.line)
        return item

    def _read_worth(self, given: dict[str, Any], rows: Sequence[Row]) -> RowRefused | None:
        if "value" not in given:
            stated = {step.outer for step in self._steps if self._is_stated(step, rows)}
            return self._refused(check_stated(given, stated))
        if refused := self._refused(value_micros(given)):
            raise refused
        return None

    def _refused(self, broken: RuleViolation | None) -> RowRefused | None:
        return None if broken is None else RowRefused(broken.field, broken.rule, self.column_of(broken.field))

    def _is_stated(self, step: columns.Step, rows: Sequence[Row]) -> bool:
        """Tell whether the file has a place for a field: a column, or in JSON the name."""
        if self._columns is not None or step.name in self._plan.columns:
            return True
        return any(step.columns[0] in row.cells for row in rows)

    def _remarks(self, given: dict[str, Any], rows: Sequence[Row]) -> list[str]:
        if not self._plan.items_total:
            return []
        total = Decimal(0)
        for column in self._plan.items_total:
            found = _first(rows, column)
            try:
                total += Decimal(0) if found is None else self._amount(found)
            except ValueError as error:
                raise RowRefused("items_total", str(error), column) from None
        return [f"the items do not cost what {' + '.join(self._plan.items_total)} says"] * items_differ(given, total)


def _first(rows: Sequence[Row], column: str) -> Any:
    """Return the first cell of a column that says something; None where none does."""
    for row in rows:
        found = columns.cell(row.cells, column)
        if not cells.is_missing(found):
            return found
    return None


def row_event_id(kind: str, row: Row) -> str:
    """Return the event id of a row that has none: 128 bits of BLAKE2b over kind, line and content."""
    content = json.dumps([kind, row.line, row.cells], sort_keys=True, default=str)
    return "import-" + hashlib.blake2b(content.encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def _read(step: columns.Step, column: str, cell: Any, row: Row) -> Any:
    try:
        return step.read(cell)
    except ValueError as error:
        raise RowRefused(step.name, str(error), column, row.line) from None


def _put(given: dict[str, Any], outer: str, inner: str, value: Any) -> None:
    if inner:
        given.setdefault(outer, {})[inner] = value
    else:
        given[outer] = value


def _read_landing(given: dict[str, Any], own_domains: tuple[str, ...]) -> None:
    """Fill in what the landing page says where the file does not say it itself."""
    user_agent = given.pop("user_agent", None)
    url = given.get("landing_url")
    if url is None:
        if user_agent:
            given.setdefault("is_bot", is_robot(user_agent))
        return
    occurred_at = given.get("occurred_at")
    landing = parse_landing(url, given.get("referrer"), user_agent, own_domains)
    if landing.is_internal and "channel" not in given:
        raise NoTouchpoint
    try:
        touch = touchpoint_from_landing(landing, occurred_at=0 if occurred_at is None else occurred_at)
    except InvalidRecord as error:
        raise RowRefused(error.field, error.rule) from None
    for name in ("platform", "channel", "interaction", "is_bot", "campaign_id", *UTM_FIELDS):
        found = getattr(touch, name)
        if found is not None:
            given.setdefault(name, found)
    given["click_ids"] = {**touch.click_ids, **given.get("click_ids", {})}
