"""A TOML file: what stands in it, and in which line. It knows no options.

tomllib keeps no positions. Of the libraries that have some, none is well kept and small enough to depend on for the
number in a message (tomlkit has none; tree-sitter's are two compiled packages). So tomllib finds them itself: a file is
a row of statements, each a header or a pair. The first lines that it reads as TOML are a statement, and so are the
next ones. Within a statement that spans several lines no line is known but its first.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from darner_core.config.values import BadOption, Keys
from darner_core.errors import ConfigError
from darner_core.showing import show

# What is in the last line of a statement that spans several.
_ENDINGS = ("]", '"""', "'''")

# When this many characters have been read in vain, the rest of the file gets no lines. It takes a list of a thousand
# lines with an ending in each, and half a second.
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
        except ValueError as error:  # a TOMLDecodeError; or what tomllib lets through, such as a number of 5000 digits
            raise ConfigError(f"{path}: {show(str(error))}") from error
        self._path = path
        self._lines = lines_of(text)

    def place(self, keys: Keys) -> str:
        """The file, and the line of what `keys` lead to, or of the nearest thing above it that has one."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return f"{self._path}: line {self._lines[keys]}" if keys else self._path

    def complaint(self, bad: BadOption) -> ConfigError:
        return ConfigError(f"{self.place(bad.keys)}: {bad}")


def lines_of(text: str) -> dict[Keys, int]:
    """The line, from 1, of each table and of each key that is not in a list, in a text that tomllib has read."""
    lines: dict[Keys, int] = {}
    many: dict[Keys, int] = {}  # arrays of tables: how many they have so far
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
    """(line, whether it is a header, what tomllib makes of it) of each."""
    statement, begin, in_vain = "", 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        begin = begin if statement else number
        is_whole = not statement or any(ending in line for ending in _ENDINGS)
        statement += line + "\n"
        if not is_whole:
            continue
        try:
            values = tomllib.loads(statement)
        except (ValueError, RecursionError):  # not all of it
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
