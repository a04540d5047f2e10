"""A background worker: ``python -m fleet.worker``."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from docket import Worker

from .jobs import QUEUE, queue_url
from .observability import telemetry

CONCURRENCY = 8
HEALTH_PORT = 8000
REDELIVERY_SECONDS = 10
"""After this a job whose worker does not say any more that it works on it goes to another one."""


async def main() -> None:
    """Work until SIGTERM, then finish the jobs that were begun."""
    await Worker.run(
        QUEUE,
        queue_url(),
        concurrency=CONCURRENCY,
        redelivery_timeout=timedelta(seconds=REDELIVERY_SECONDS),
        reconnection_delay=timedelta(seconds=1),
        healthcheck_port=HEALTH_PORT,
        tasks=["fleet.jobs:TASKS"],
    )


if __name__ == "__main__":
    with telemetry():
        asyncio.run(main())
