"""`timeout_at`: asyncio's own from Python 3.11 on, before that the package that redis-py brings."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout_at
else:
    from async_timeout import timeout_at

__all__ = ["timeout_at"]
