"""The oldest versions that the package admits are those that CI installs."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
USERS_EXTRAS = ("speed", "lab", "cli")


def listed(name: str) -> list[Requirement]:
    """Return the requirements of one list in pyproject.toml; Python 3.10 has no parser of it."""
    found = re.search(rf"^{name} = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert found, name
    return [Requirement(text) for text in re.findall(r'"([^"]+)"', found[1])]


def only(requirement: Requirement, operator: str) -> Version:
    (version,) = [each.version for each in requirement.specifier if each.operator == operator]
    return Version(version)


def test_ci_installs_the_oldest_versions_that_are_admitted() -> None:
    admitted = {r.name: only(r, ">=") for name in ("dependencies", *USERS_EXTRAS) for r in listed(name)}
    lines = [line for line in (ROOT / ".ci" / "floors.txt").read_text().splitlines() if not line.startswith("#")]
    installed = {r.name: only(r, "==") for r in map(Requirement, lines)}
    assert installed == admitted
    assert list(installed) == sorted(installed)
