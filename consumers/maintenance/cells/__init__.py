"""Moving a tenant from one installation (cell) to another."""

from __future__ import annotations

from .cell import Cell, this_cell
from .move_tenant import MoveReport, NotReadyError, TenantMove

__all__ = ["Cell", "MoveReport", "NotReadyError", "TenantMove", "this_cell"]
