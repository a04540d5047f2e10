"""Small changes of the client and of its scripts, each of which breaks one promise. The simulation has to find them.

They are in mutants.txt. Each has a head (what is wrong with it, its file below the package, the topologies to look for
it in turn) and lines as in a patch: what stands there once, what takes its place, and what is in front of both. Where
the code has changed so that a mutant fits no more, a test says so: write it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: What is wrong with it.
        file: Below the package.
        old: The lines, which stand there once.
        new: What takes their place.
        topologies: Where to look for it, in turn; ``name*3`` is with three processes in each run.
    """

    name: str
    file: str
    old: str
    new: str
    topologies: tuple[str, ...]


def read_mutants(text: str) -> Iterator[Mutant]:
    """Yield the mutants of a text in the format of mutants.txt."""
    for part in f"\n{text}".split("\n== ")[1:]:
        head, _, body = part.partition("\n")
        name, file, topologies = (field.strip() for field in head.split("|"))
        lines = [line for line in body.split("\n") if line]
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
        yield Mutant(name, file, old, new, tuple(topologies.split()))


MUTANTS = tuple(read_mutants(Path(__file__).with_name("mutants.txt").read_text(encoding="utf-8")))
