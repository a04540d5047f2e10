"""What a contributor reads is what is there: the rooms of the tree, and hooks that need no other host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "agents_redis_ha"


def rooms(folder: Path) -> set[str]:
    """Return the folders with sources in them and, in the package, the files beside them."""
    folders = {path.parent.relative_to(folder).parts[0] for path in folder.glob("*/**/*.py")}
    return folders | ({path.name for path in folder.glob("*.py")} if folder == PACKAGE else set())


def listed(opening: str) -> list[str]:
    """Return the first column of the table that follows a line of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(opening)}.*?:\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"CONTRIBUTING.md has no table after {opening}"
    return re.findall(r"^\| `([^`]+)` \|", found[1], re.MULTILINE)


@pytest.mark.parametrize(("opening", "folder"), [("`src/agents_redis_ha`", PACKAGE), ("`tests`", ROOT / "tests")])
def test_the_listed_rooms_are_those_of_the_tree(opening: str, folder: Path) -> None:
    assert sorted(listed(opening)) == sorted(rooms(folder))


def test_the_tree_in_the_architecture_names_every_module_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\nsrc/agents_redis_ha/\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    named, room = set(), ""
    for line in tree.splitlines():
        entry = re.match(r"( +)(\S+?)(/?)(, \S+)? ", line)
        if entry is None:
            continue
        room = "" if len(entry[1]) == 2 else room
        if entry[3]:
            room = f"{entry[2]}/"
        names = [entry[2], *([entry[4].removeprefix(", ")] if entry[4] else [])]
        named |= {f"{room}{name}" for name in names if name.endswith(".py")}
    described = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent == PACKAGE]
    core = {str(path.relative_to(PACKAGE)) for path in described}
    assert named == {path for path in core if path.split("/")[0] not in ("lab", "demo")}


def test_the_hooks_are_the_environments_own() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (.+)", hooks) == ["local"]
    assert "://" not in hooks
    entries = {entry.split()[0] for entry in re.findall(r"entry: (.+)", hooks)}
    assert entries == {"ruff", "mypy"}
    assert len(re.findall(r"language: system", hooks)) == len(re.findall(r"- id: ", hooks))
