"""Exit codes of the commands: those of a shell and, where one fits, of sysexits.h. See docs/how-to/operate.md."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
DEPENDENCY_DOWN = 69
OUTPUT = 74
CONFIG = 78
INTERRUPTED = 130
PIPE = 141
