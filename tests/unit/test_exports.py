"""What a module lists in `__all__` is what it defines for others."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import agents_redis_ha

ROOT = Path(inspect.getfile(agents_redis_ha)).parent


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_bound_by(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module binds at its top level by other means than an import."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


TREES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
BOUND = {name: list(names_bound_by(tree)) for name, tree in TREES.items()}
LISTING = [name for name, bound in BOUND.items() if "__all__" in bound]


@pytest.mark.parametrize("name", LISTING)
def test_a_module_lists_every_public_name_that_it_defines(name: str) -> None:
    public = {each for each in BOUND[name] if not each.startswith("_")}
    assert public - set(importlib.import_module(name).__all__) == set()


@pytest.mark.parametrize("name", LISTING)
def test_a_module_has_what_it_lists_and_lists_it_once(name: str) -> None:
    module = importlib.import_module(name)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []
    assert len(module.__all__) == len(set(module.__all__))
