"""What the lab raises.

LabError                 the lab could not do what was asked; the message says what to do about it
├── PortTakenError       a server or a proxy found its port in use; `start` tries again with other ports
└── WorkerError          a worker process did not start, or ended by itself
"""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked. The servers may be in any state; closing works."""


class PortTakenError(LabError):
    """A server, proxy or relay could not listen because another process took its port in the meantime."""


class WorkerError(LabError):
    """A worker process did not start, or ended by itself."""
