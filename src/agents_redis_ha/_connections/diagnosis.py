"""Why a first contact failed: told apart from a passing fault, so that a wrong setting is said at once.

A server closes a connection that it cannot read without a word, which looks like a crash. Only a node that never
answered is looked at this way.
"""

from __future__ import annotations

import asyncio
import ssl

from redis import exceptions as redis_errors

from .._asyncio import timeout_at
from .._config import Address, TLSConfig
from ..errors import OperationError, TLSError
from .failures import AttemptError

__all__ = ["permanent_cause"]

_PROBE_SECONDS = 0.4
# How a server that speaks another language looks to redis-py.
_UNREADABLE = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.InvalidResponse, OSError)


async def permanent_cause(
    error: AttemptError, address: Address | None, tls: TLSConfig | None
) -> type[OperationError] | None:
    """Return the error class for a first contact that cannot succeed later either, or None.

    Args:
        error: How the first contact failed.
        address: Where; None for a Unix socket.
        tls: How TLS was used, if it was.
    """
    if address is None or not isinstance(error.cause, _UNREADABLE):
        return None
    underlying = error.cause.__context__
    if isinstance(underlying, ConnectionRefusedError):
        return None
    if tls is None:
        return TLSError if await _speaks_tls(address) else None
    if isinstance(underlying, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return TLSError  # a certificate's file; DNS and TCP fail in other ways
    return TLSError if await _speaks_plain_text(address) else None


async def _speaks_tls(address: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with timeout_at(asyncio.get_running_loop().time() + _PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLError as error:
        # An alert is TLS all the same, such as the demand for a client certificate; a wrong version number is not.
        return "WRONG_VERSION_NUMBER" not in str(error) and "RECORD_LAYER_FAILURE" not in str(error)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.transport.abort()
    return True


async def _speaks_plain_text(address: Address) -> bool:
    try:
        async with timeout_at(asyncio.get_running_loop().time() + _PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(*address)
    except (OSError, asyncio.TimeoutError):
        return False
    try:
        writer.write(b"PING\r\n")
        async with timeout_at(asyncio.get_running_loop().time() + _PROBE_SECONDS):
            return (await reader.read(1)) in (b"+", b"-")
    except (OSError, asyncio.TimeoutError):
        return False
    finally:
        writer.transport.abort()
