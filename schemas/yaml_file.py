"""One way to read a file of YAML that a person wrote (JSON is YAML, too).

Contract: whatever the file holds, there is its document or a ``YamlFileError`` that says in a few plain words what is
wrong, with the line where there is one. No text of the file is quoted: it may be a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_MAX_BYTES = 8 * 1024 * 1024  # files of settings; far above any that was written by hand


class YamlFileError(ValueError):
    """A file that is no YAML, or cannot be read; the text does not name it.

    Attributes:
        is_read: whether the file could be read, so that its content is wrong.
    """

    def __init__(self, rule: str, *, is_read: bool = True) -> None:
        self.is_read = is_read
        super().__init__(rule)


def read_yaml(path: Path) -> Any:
    """Return the document of a file of YAML; None: the file is empty.

    Raises:
        YamlFileError: it cannot be read, or is no YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        rule = getattr(error, "strerror", None) or "is no name of a file"
        raise YamlFileError(rule, is_read=False) from None
    if len(data) > _MAX_BYTES:
        raise YamlFileError(f"is not YAML: more than {_MAX_BYTES >> 20} MiB")
    try:
        return yaml.safe_load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise YamlFileError(f"is not YAML: line {_line(data, error.start)} is no UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        raise YamlFileError("is not YAML" + (f": see line {at.line + 1}" if at else "")) from None
    except yaml.reader.ReaderError as error:
        line = _line(data, len(data.decode("utf-8")[: error.position].encode("utf-8")))
        raise YamlFileError(f"is not YAML: line {line} holds a control character") from None
    except yaml.YAMLError:
        raise YamlFileError("is not YAML") from None
    except RecursionError:
        raise YamlFileError("is not YAML: brackets in brackets, too deep") from None
    except ValueError:  # a number of thousands of digits, the 31st of February
        raise YamlFileError("is not YAML: a number or a date that cannot be") from None


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1
