"""Configuration files and command lines, for the tests of the configuration."""

from pathlib import Path

import pytest

from darner_core.config import command_line
from darner_core.errors import ConfigError


def as_typed(option: str, text: str) -> list[str]:
    flag = f"--{option.replace('_', '-')}"
    return [flag, text] if text else [flag]


class File:
    """A file of options."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *lines: str) -> list[str]:
        """The command line that gives these lines in the file."""
        self.path.write_text("\n".join(lines))
        return ["-c", str(self.path)]


def complaint_about(arguments: list[str]) -> str:
    """What the user is told, which is one line."""
    with pytest.raises(ConfigError) as refused:
        command_line.parse(arguments)
    message = str(refused.value)
    assert len(message.splitlines()) == 1, message
    assert message.isprintable()
    return message
