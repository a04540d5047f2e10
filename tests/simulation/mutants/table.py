"""Small changes of the client and of its scripts, each of which breaks one promise. The simulation has to find them.

They are in mutants.txt. Each has a head (what is wrong with it, its file below the package, where to look for it in
turn) and lines as in a patch: what stands there once, what takes its place, what is in front of both. A line with ``@``
names a file that is changed, too. Lines with ``#`` say why a mutant breaks nothing: such a one is not
looked for. Where the code has changed so that a mutant fits no more, a test says so: write it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """One change of one file.

    Attributes:
        file: Below the package.
        old: The lines, which stand there once.
        new: What takes their place.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One mutant.

    Attributes:
        name: What is wrong with it.
        edits: What it changes.
        topologies: Where to look for it, in turn; ``name*3`` is with three processes in each run, ``name:races`` with
            the plans of a profile, ``name+turns`` with the workload ``turns``.
        equivalent: Why it breaks nothing; empty where it does.
    """

    name: str
    edits: tuple[Edit, ...]
    topologies: tuple[str, ...]
    equivalent: str = ""


def read_mutants(text: str) -> Iterator[Mutant]:
    """Yield the mutants of a text in the format of mutants.txt."""
    for part in f"\n{text}".split("\n== ")[1:]:
        head, _, body = part.partition("\n")
        name, file, topologies = (field.strip() for field in head.split("|"))
        lines = [line for line in body.split("\n") if line]
        why = " ".join(line[1:].strip() for line in lines if line[0] == "#")
        changed: list[tuple[str, list[str]]] = [(file, [])]
        for line in lines:
            if line[0] == "@":
                changed.append((line[1:].strip(), []))
            elif line[0] != "#":
                changed[-1][1].append(line)
        edits = tuple(Edit(each, _side(own, " -"), _side(own, " +")) for each, own in changed)
        yield Mutant(name, edits, tuple(topologies.split()), why)


def _side(lines: list[str], kept: str) -> str:
    return "".join(f"{line[1:]}\n" for line in lines if line[0] in kept)


MUTANTS = tuple(read_mutants(Path(__file__).with_name("mutants.txt").read_text(encoding="utf-8")))
