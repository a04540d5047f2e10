"""The demo: real agents in several processes talk through real servers, and one of those dies.

The SDK's own Runner replays recorded conversations. A scripted model and scripted functions answer as recorded, so that
it is known beforehand what the store must hold in the end. The turns of a conversation go round the worker processes.
In the middle a fault strikes the servers. At the end every conversation is read from the servers and compared.
"""

from ..lab.conversations import ConversationError
from .progress import choose_progress
from .report import Report, figures, findings
from .run import Options, run_demo
from .servers import FAULTS, TOPOLOGIES

__all__ = [
    "FAULTS",
    "TOPOLOGIES",
    "ConversationError",
    "Options",
    "Report",
    "choose_progress",
    "figures",
    "findings",
    "run_demo",
]
