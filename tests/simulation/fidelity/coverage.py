"""Which branches of the scripts ran: each condition of an ``if``, and each operand of ``and`` and ``or``, both ways.

The source is instrumented line by line: every condition and operand goes through a function that notes whether it held.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from agents_redis_ha._commands.command import PARTS, load_script, read_source
from tests.simulation.redis.scripting import interpreter

__all__ = ["Branch", "BranchCoverage", "instrumented"]

_TOKEN = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|\w+|[=~<>]=|\.\.\.?|\s+|.", re.DOTALL)
_OPENS, _CLOSES = {"(", "{", "["}, {")", "}", "]"}
_BEFORE = {"=", "return", ",", "if", "elseif", "while", "until", "and", "or", *_OPENS}
_AFTER = {"and", "or", ",", "then", "do", "local", "return", "if", "for", "while", "end", "else", "elseif", "function"}
# What is never false in Lua: literals but nil and false, arithmetic, and what returns a number, a table or a text.
_ALWAYS = re.compile(
    r"'.*'|\d+|\{.*\}|-\w+|[\w.]+ [-+] .*"
    r"|(math\.\w+|(rarely\(\)\.)?fields_like|rarely|state|description|digest_of|redis\.error_reply)\(.*\)"
    r"|redis\.call\('LRANGE'.*\)|s\.(version|retention|noted)",
    re.DOTALL,
)
_GOES_ON = {"and", "or", "..", "+", "-", "*", "/", "==", "~=", "<", ">", "<=", ">=", "=", ","}


class Branch(NamedTuple):
    """One way that a condition can go.

    Attributes:
        script: In the file of which script, or of which part that several have.
        line: Where in it.
        text: The condition.
        holds: Which way.
    """

    script: str
    line: int
    text: str
    holds: bool


class _Token(NamedTuple):
    text: str
    line: int
    depth: int
    begins_line: bool


def _tokens(source: str) -> Iterator[_Token]:
    line, depth, begins = 1, 0, True
    for found in _TOKEN.finditer(source):
        text = found[0]
        if text in _CLOSES:
            depth -= 1
        yield _Token(text, line, depth, begins and not text.isspace())
        if text in _OPENS:
            depth += 1
        begins = "\n" in text if text.isspace() else text.startswith("--")
        line += text.count("\n")


def _spans(tokens: list[_Token]) -> list[tuple[int, int]]:
    """Return the conditions and operands: index of their first token, and the one behind their last."""
    found = list[tuple[int, int]]()
    for at, token in enumerate(tokens):
        if token.text in ("if", "elseif", "while", "and", "or"):
            end = _end(tokens, at + 1, token.depth)
            found.append((at + 1, end))
        if token.text in ("and", "or"):
            begin = at
            while not (tokens[begin - 1].depth == token.depth and tokens[begin - 1].text in _BEFORE - _OPENS) and not (
                tokens[begin - 1].text in _OPENS and tokens[begin - 1].depth == token.depth - 1
            ):
                begin -= 1
            found.append((begin, at))
    return sorted(set(found))


def _end(tokens: list[_Token], at: int, depth: int) -> int:
    previous = "and"
    while at < len(tokens):
        token = tokens[at]
        if token.depth < depth:
            return at
        if token.depth == depth and not token.text.isspace():
            starts_statement = token.begins_line and token.text not in _GOES_ON and previous not in _GOES_ON
            if token.text in _AFTER or (token.text in _CLOSES and token.depth < depth) or starts_statement:
                return at
        if not token.text.isspace():
            previous = token.text
        at += 1
    return at


def _trimmed(tokens: list[_Token], begin: int, end: int) -> tuple[int, int]:
    while tokens[begin].text.isspace():
        begin += 1
    while tokens[end - 1].text.isspace():
        end -= 1
    return begin, end


def instrumented(source: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    """Return a source that calls ``__branch(number, value)``, and the line and text of each number."""
    tokens = [token for token in _tokens(source.decode("latin-1")) if not token.text.startswith("--")]
    begins: dict[int, list[int]] = {}
    ends: dict[int, int] = {}
    conditions = list[tuple[int, str]]()
    for begin, end in (_trimmed(tokens, *span) for span in _spans(tokens)):
        conditions.append((tokens[begin].line, "".join(token.text for token in tokens[begin:end])))
        begins.setdefault(begin, []).append(len(conditions) - 1)
        ends[end] = ends.get(end, 0) + 1
    out = []
    for at, token in enumerate(tokens):
        out.append(")" * ends.get(at, 0))
        out += [f" __branch({number}, " for number in begins.get(at, ())]
        out.append(token.text)
    out.append(")" * ends.get(len(tokens), 0))
    return "".join(out).encode("latin-1"), conditions


class BranchCoverage:
    """The branches of the scripts that ran from now on; what several scripts have counts once.

    Args:
        major: The version of the servers.
        names: The scripts.
        is_valkey: Whether they are Valkey.
    """

    def __init__(self, major: int, names: tuple[str, ...], *, is_valkey: bool = False) -> None:
        found = interpreter(major, is_valkey=is_valkey)
        self.all: dict[tuple[str, int, bool], Branch] = {}
        self._seen = set[tuple[str, int, bool]]()
        sources = {name: load_script(name).source for name in names}
        for name, source in sources.items():
            changed, conditions = instrumented(source)
            parts = ("prelude", *PARTS[name], name)
            places = [(part, line) for part in parts for line in range(1, read_source(part).count(b"\n") + 1)]
            counts = Counter[str]()
            for number, (line, text) in enumerate(conditions):
                place, line_there = places[line - 1]
                there, counts[place] = counts[place], counts[place] + 1
                mark = b"__branch(%d, " % number
                changed = changed.replace(mark, b"__branch('%b', %d, " % (place.encode(), there))
                for holds in (True,) if _ALWAYS.fullmatch(text) else (True, False):
                    self.all[place, there, holds] = Branch(place, line_there, text, holds)
            found.define(b"__branch", self._note)
            found.substitute(source, changed)

    def _note(self, place: bytes, number: int, value: object = None, *_: object) -> object:
        self._seen.add((place.decode(), number, value is not None and value is not False))
        return value

    @property
    def missed(self) -> list[Branch]:
        """The branches that never ran."""
        return [branch for key, branch in self.all.items() if key not in self._seen]
