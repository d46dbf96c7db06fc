"""A TOML file: its values, and the line of each. It knows no options.

tomllib keeps no positions. No library that does is both well kept and small enough to depend on for the number in a
message. So tomllib is asked several times: a file is a series of statements, each a header or a pair, and the fewest
lines that tomllib accepts are the next statement. Only the first line of a statement is known.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from darner_core.config.values import BadOption, Keys
from darner_core.errors import ConfigError
from darner_core.showing import show

# One of these is in the last line of a statement that spans several lines.
_ENDINGS = ("]", '"""', "'''")

# When this many characters have been read in vain, the rest of the file gets no line numbers. That takes half a second,
# and a list of a thousand lines with such an ending in each.
_MOST_IN_VAIN = 2 << 20


class TomlFile:
    """`values` is the whole file. Each ConfigError names the file and, where it is known, the line."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError."""
        try:
            with open(path, "rb") as file:
                written = file.read()
            text = written.decode()
            self.values: dict[str, Any] = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            line = written.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}: line {line}: must be UTF-8") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: too many lists or tables inside each other") from error
        except ValueError as error:  # a TOMLDecodeError, or an error of Python for a number of 5000 digits
            raise ConfigError(f"{path}: {show(str(error))}") from error
        self._path = path
        self._lines = lines_of(text)

    def place(self, keys: Keys) -> str:
        """The file, and the line of what `keys` lead to. If that has no line, the line of what it belongs to."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return f"{self._path}: line {self._lines[keys]}" if keys else self._path

    def complaint(self, bad: BadOption) -> ConfigError:
        return ConfigError(f"{self.place(bad.keys)}: {bad}")


def lines_of(text: str) -> dict[Keys, int]:
    """The line, counted from 1, of each table and of each key outside lists. tomllib has read the text without
    error."""
    lines: dict[Keys, int] = {}
    many: dict[Keys, int] = {}  # how many tables each array of tables has so far
    table: Keys = ()
    for line, is_header, values in _statements(text):
        if not is_header:
            for keys in _keys_in(values, table):
                lines.setdefault(keys, line)
            continue
        table = ()
        while values:
            ((key, values),) = values.items()
            table += (key,)
            if isinstance(values, list):  # [[key]]: one more
                many[table] = many.get(table, 0) + 1
                values = values[0]
            elif not values:
                lines[table] = line  # a table's own header is better than one below it that came first
            lines.setdefault(table, line)
            if table in many:  # what follows belongs to the last of them
                table += (many[table] - 1,)
                lines.setdefault(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, bool, Any]]:
    """(line, whether it is a header, its values) of each statement."""
    statement, begin, in_vain = "", 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        begin = begin if statement else number
        is_whole = not statement or any(ending in line for ending in _ENDINGS)
        statement += line + "\n"
        if not is_whole:
            continue
        try:
            values = tomllib.loads(statement)
        except (ValueError, RecursionError):  # only a part of it
            in_vain += len(statement)
            if in_vain > _MOST_IN_VAIN:
                return
            continue
        yield begin, statement.lstrip(" \t").startswith("["), values
        statement = ""


def _keys_in(values: dict[str, Any], above: Keys) -> Iterator[Keys]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _keys_in(value, (*above, key))
