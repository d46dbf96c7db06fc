"""The README's examples for Python, run as they stand there against a real server."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.harness import REPLY_S, ROOT, RunningServer

EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def run_example(library: str, server: RunningServer) -> tuple[str, str]:
    """What the example of this library prints, and what it complains of."""
    example = next(example for example in EXAMPLES if library in example)
    assert "22133" in example
    ended = subprocess.run(
        [sys.executable, "-c", example.replace("22133", str(server.port))],
        capture_output=True,
        text=True,
        timeout=REPLY_S,
        check=False,
    )
    return ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("library", "options", "printed"),
    [("pylibmc", (), "{'id': 1}\n"), ("pymemcache", ("--reply-key", "request"), "b'hello'\n")],
)
def test_the_example_of_a_client_library(
    library: str, options: tuple[str, ...], printed: str, start_server: Callable[..., RunningServer]
) -> None:
    server = start_server(*options)
    assert run_example(library, server) == (printed, "")
    server.client().ask(b"get work\r\n", b"END\r\n")  # the last item, too, was confirmed


def test_without_the_option_that_pymemcache_needs_it_never_sees_the_item(
    start_server: Callable[..., RunningServer],
) -> None:
    assert run_example("pymemcache", start_server())[0] == ""
