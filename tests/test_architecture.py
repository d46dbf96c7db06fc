"""The rooms of the house: which package may import which. A package that wants more has to say so here."""

import ast
import re
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "darner_core"

# What each room may import, beside FREE and its own modules. `engines` holds what all engines have in common; each of
# them is a room of its own.
MAY_IMPORT = {
    "main": "server tools ctl config storage",
    "server": "protocols operations engines engines.local access config storage",
    "protocols": "operations engines access config",
    "operations": "engines access config",
    "engines.local": "engines storage config",
    "ctl": "tools config",
    "tools": "storage config",
    "engines": "config",
    "storage": "",
    "config": "access",
    "access": "",
}
FREE = {
    "", "errors", "files", "nearest", "operating_system", "repeated", "shared_memory", "showing", "slicing", "waiters",
}  # fmt: skip

# Rooms that may not name these even for types: they are handed an engine, and know what the contract promises.
NOT_EVEN_TYPES = {"operations": "engines.local", "protocols": "engines.local"}

# Who may import what does not belong to us.
OUTSIDE = {
    "gevent": {"waiters", "server", "access"},
    "rocksdict": {"storage"},
    "thriftpy2": {"protocols"},
    "falcon": {"protocols"},
    "prometheus_client": {"protocols"},
    "google_crc32c": {"storage"},
    "click": {"ctl"},
    "rich": {"ctl"},
    "redis": {"ctl"},
}

# What knows neither sockets nor disks nor the time of day: bytes and numbers in, bytes and numbers out.
PURE = [
    "protocols.memcache.reader", "protocols.memcache.lines", "protocols.memcache.replies", "protocols.grammar",
    "protocols.memcache.login", "protocols.memcache.dialects", "protocols.memcache.options", "protocols.options",
    "protocols.kestrel_text.reader", "protocols.thrift.reader", "protocols.beanstalkd.reader",
    "protocols.beanstalkd.replies", "protocols.resp.reader", "protocols.resp.replies", "protocols.resp.login",
    "protocols.resp.naming", "protocols.escaping", "storage.records", "errors", "shared_memory",
    "engines.local.window", "access.rights", "config.values", "config.queues",
    "config.queue_tables", "config.listeners",
]  # fmt: skip
WORLDLY = {"socket", "os", "time", "threading", "select", "signal", "logging", "random", "subprocess", "io", "asyncio"}

# Protocols that are a package and a line in the list: so one can be taken away, and the next be added. The words that
# nobody else says.
ALONE = {"protocols.beanstalkd": r"beanstalk", "protocols.resp": r"redis|disque|\bresp\b"}
# The list, in two parts, and the options, of which one is a protocol's own.
LISTS = {"config.listeners", "config.options", "protocols.vocabularies"}


def for_types_alone(part: ast.stmt) -> bool:
    """Whether this is an `if TYPE_CHECKING`: a module may name the type of what is handed to it from above."""
    return isinstance(part, ast.If) and isinstance(part.test, ast.Name) and part.test.id == "TYPE_CHECKING"


def path_of(module: str) -> Path:
    path = ROOT.joinpath(PACKAGE, *module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def imports(module: str, for_types: bool = False) -> set[str]:
    """The full names of the modules that this one imports, wherever in its text; `for_types`: those for types too."""
    tree = ast.parse(path_of(module).read_text())
    found: set[str] = set()
    for node in (node for part in tree.body if for_types or not for_types_alone(part) for node in ast.walk(part)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            name = node.module or ""
            full = {f"{name}.{alias.name}" for alias in node.names}
            found |= {one for one in full if one.removeprefix(f"{PACKAGE}.") in MODULES} or {name}
    return found


def ours(module: str) -> set[str]:
    found = {name.removeprefix(PACKAGE).lstrip(".") for name in imports(module) if name.split(".")[0] == PACKAGE}
    return found - {module}


def outside(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} - {PACKAGE}


def room(module: str) -> str:
    """`protocols` of `protocols.thrift.reader`, `engines.local` of `engines.local.cursor`, `main` of `main`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engines" and len(parts) > 2 else parts[0]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)


MODULES = sorted(name_of(path) for path in (ROOT / PACKAGE).rglob("*.py") if path.stem != "__init__")
PACKAGES = sorted(name_of(path.parent) for path in (ROOT / PACKAGE).glob("*/**/__init__.py"))

each_module = pytest.mark.parametrize("module", MODULES)


def test_every_room_stands_in_the_table() -> None:
    assert {room(module) for module in MODULES} | {"engines"} == MAY_IMPORT.keys() | FREE - {""}


@each_module
def test_a_room_imports_only_what_its_line_allows(module: str) -> None:
    own = room(module)
    allowed = {own, *FREE, *MAY_IMPORT.get(own, "").split()}
    found = {room(other) for other in ours(module)}
    assert found - allowed == set()


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in NOT_EVEN_TYPES])
def test_what_is_handed_an_engine_names_no_engine(module: str) -> None:
    named = {room(name.removeprefix(f"{PACKAGE}.")) for name in imports(module, for_types=True)}
    assert NOT_EVEN_TYPES[room(module)] not in named


def test_no_module_imports_itself_by_way_of_others() -> None:
    seen: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in seen:
            for other in ours(module) & set(MODULES):
                visit(other, (*path, module))
            seen.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_imports_are_really_seen() -> None:
    """A check that sees nothing would find nothing wrong."""
    assert ours("main") >= {"config.options", "server.server", "errors", "storage.storage"}
    assert ours("engines.local.journal") >= {"storage.records", "storage.storage", "errors"}
    assert outside("server.acceptor") >= {"gevent", "socket", "logging"}


@each_module
def test_only_some_rooms_import_what_is_not_ours(module: str) -> None:
    for library, allowed in OUTSIDE.items():
        assert library not in outside(module) or room(module) in allowed
    assert outside(module) <= sys.stdlib_module_names | OUTSIDE.keys()


@each_module
def test_nothing_is_monkey_patched(module: str) -> None:
    assert "gevent.monkey" not in imports(module)


@pytest.mark.parametrize("module", PURE)
def test_what_deals_in_bytes_alone_imports_nothing_of_the_world(module: str) -> None:
    assert outside(module) & WORLDLY == set()


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("protocols.")])
def test_protocols_know_nothing_of_each_other(module: str) -> None:
    own = module.split(".")[:2]
    others = [other.split(".")[:2] for other in ours(module) if other.startswith("protocols.") and other.count(".") > 1]
    assert [other for other in others if other != own] == []


@pytest.mark.parametrize(("package", "words"), ALONE.items())
def test_nothing_but_the_list_of_protocols_knows_of_a_protocol(package: str, words: str) -> None:
    says = {module for module in MODULES if re.search(words, path_of(module).read_text(), re.IGNORECASE)}
    # The control tool is a client of other servers, too: it knows their protocols, and nothing of how ours speaks them.
    says = {module for module in says if room(module) != "ctl"}
    assert {module for module in says if not module.startswith(f"{package}.")} - LISTS == set()
    assert says & LISTS, "else these are not the words"


@each_module
def test_every_module_has_its_tests(module: str) -> None:
    *packages, name = module.split(".")
    assert ROOT.joinpath("tests", *packages, f"test_{name}.py").exists()


@pytest.mark.parametrize("module", list(chain(MODULES, PACKAGES)))
def test_every_module_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(path_of(module).read_text()))
    assert docstring, "a module's docstring says what it owns and what it promises"
