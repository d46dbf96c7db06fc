"""A TOML file: what stands in it, and where. It knows no options."""

import tomllib
from typing import Any

from darner_core.config.toml_lines import Lines
from darner_core.config.values import BadOption, Keys, show_text
from darner_core.errors import ConfigError


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
            raise ConfigError(f"{path}: {show_text(str(error))}") from error
        self._path = path
        self._lines = Lines(text, self.values)

    def place(self, keys: Keys) -> str:
        line = self._lines.of(keys)
        return f"{self._path}: line {line}" if line else self._path

    def complaint(self, bad: BadOption) -> ConfigError:
        return ConfigError(f"{self.place(bad.keys)}: {bad}")
