"""Why a first contact failed: told apart from a passing fault, so that a wrong setting is said at once.

A server closes a connection that it cannot read without a word, which looks like a crash. Only a node that never
answered is looked at this way.
"""

from __future__ import annotations

import asyncio
import ssl

from redis import exceptions as redis_errors

from ..config import Address
from ..errors import AttemptError, OperationError, TLSError

__all__ = ["lasting_cause"]

_PROBE_SECONDS = 0.4


async def lasting_cause(error: AttemptError, address: Address | None, *, tls: bool) -> type[OperationError] | None:
    """Return the error class for a first contact that cannot succeed later either, or None.

    Args:
        error: How the first contact failed.
        address: Where; None for a Unix socket.
        tls: Whether TLS was used.
    """
    closed = isinstance(error.cause, (redis_errors.ConnectionError, redis_errors.InvalidResponse, OSError))
    refused = isinstance(error.cause.__context__, ConnectionRefusedError)
    if address is None or tls or not closed or refused:
        return None
    return TLSError if await _speaks_tls(address) else None


async def _speaks_tls(address: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        opening = asyncio.open_connection(address.host, address.port, ssl=context)
        _, writer = await asyncio.wait_for(opening, _PROBE_SECONDS)
    except ssl.SSLError as error:
        # An alert is TLS all the same, such as the demand for a client certificate; a wrong version number is not.
        return "WRONG_VERSION_NUMBER" not in str(error) and "RECORD_LAYER_FAILURE" not in str(error)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.transport.abort()
    return True
