"""The layers: which module may import which. A module that wants more has to say so here."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "darner_core"

# From the top down. A module imports only what stands in the lines below its own.
LAYERS = [
    "main",
    "server",
    "reception",
    "connection",
    "outgoing",
    "kestrel_ports",
    "thrift_service",
    "text_commands",
    "batches",
    "commands turn guard",
    "watching monitoring",
    "operating",
    "enforcement",
    "storing reading administering refusals",
    "sweeper",
    "delivery",
    "client",
    "repair",
    "cursor_copy",
    "check rebuild dump follow",
    "upkeep read_timeouts stats access",
    "taken",
    "session pending_reads traced_queue",
    "registry",
    "cursors",
    "cursor",
    "message_queue",
    "expiring",
    "backlog",
    "large_items open_read",
    "journal salvage",
    "storage",
    "database",
    "manifest",
    "records",
    "listeners",
    # Leaves: of each other they know the errors and the words of `rights` at most, but for what `config` is made of.
    "thrift_messages",
    "text_protocol thrift_protocol request_lines",
    "protocol",
    "config dialects window shared_memory timeouts descriptors heap waiters tls wal progress status snapshot shown",
    "repeated",
    "queue_tables",
    "queue_options listener_options toml_file origins",
    "rights users option_values toml_lines replies",
    "errors nearest",
]
LEVEL = {module: level for level, modules in enumerate(reversed(LAYERS)) for module in modules.split()}

# Who may import what does not belong to us.
OUTSIDE = {
    "gevent": {"waiters", "connection", "outgoing", "server", "reception", "access", "tls"},
    "rocksdict": {"storage", "database"},
    "thriftpy2": {"thrift_messages"},
    "google_crc32c": {"wal"},
}

# What knows neither sockets nor disks nor the time of day: bytes and numbers in, bytes and numbers out.
PURE = {"protocol", "records", "replies", "errors", "window", "shared_memory", "rights", "toml_lines", "option_values"}
PURE |= {"queue_options", "queue_tables", "listener_options", "refusals"}
PURE |= {"text_protocol", "thrift_protocol"}
WORLDLY = {"socket", "os", "time", "threading", "select", "signal", "logging", "random", "subprocess", "io", "asyncio"}


def for_types_alone(part: ast.stmt) -> bool:
    """Whether this is an `if TYPE_CHECKING`: a module may name the type of what is handed to it from above."""
    return isinstance(part, ast.If) and isinstance(part.test, ast.Name) and part.test.id == "TYPE_CHECKING"


def imports(module: str) -> set[str]:
    """The full names of the modules that this one imports, wherever in its text."""
    tree = ast.parse((ROOT / PACKAGE / f"{module}.py").read_text())
    found: set[str] = set()
    for node in (node for part in tree.body if not for_types_alone(part) for node in ast.walk(part)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            name = node.module or ""
            if name == PACKAGE:  # from darner_core import NAME, records
                found.update(f"{PACKAGE}.{alias.name}" for alias in node.names if alias.name in MODULES)
            else:
                found.add(name)
    return found


def ours(module: str) -> set[str]:
    return {name.split(".")[1] for name in imports(module) if name.startswith(f"{PACKAGE}.")}


def outside(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} - {PACKAGE}


MODULES = sorted(path.stem for path in (ROOT / PACKAGE).glob("*.py") if path.stem != "__init__")

each_module = pytest.mark.parametrize("module", MODULES)


def test_every_module_has_its_place() -> None:
    assert sorted(LEVEL) == MODULES


@each_module
def test_imports_point_down(module: str) -> None:
    assert {other for other in ours(module) if LEVEL[other] >= LEVEL[module]} == set()


def test_the_imports_are_really_seen() -> None:
    """A check that sees nothing would find nothing wrong."""
    assert ours("main") >= {"config", "server", "errors", "storage"}
    assert ours("journal") >= {"records", "storage", "errors"}
    assert outside("reception") >= {"gevent", "socket", "logging"}


@each_module
def test_only_those_that_wait_import_gevent_and_only_two_rocksdict(module: str) -> None:
    for library, allowed in OUTSIDE.items():
        assert (library in outside(module)) == (module in allowed)
    assert outside(module) <= sys.stdlib_module_names | OUTSIDE.keys()


@each_module
def test_nothing_is_monkey_patched(module: str) -> None:
    assert "gevent.monkey" not in imports(module)


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_deals_in_bytes_alone_imports_nothing_of_the_world(module: str) -> None:
    assert outside(module) & WORLDLY == set()


@each_module
def test_every_module_has_its_tests(module: str) -> None:
    assert (ROOT / "tests" / f"test_{module}.py").exists()


@each_module
def test_no_module_takes_a_name_of_the_standard_library(module: str) -> None:
    assert module not in sys.stdlib_module_names


@each_module
def test_every_module_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / PACKAGE / f"{module}.py").read_text()))
    assert docstring, "a module's docstring says what it owns and what it promises"
