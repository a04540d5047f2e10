"""One turn, once: a user's message, one run of the agent, one answer, published in one piece."""

from .approvals import SuspendedTurn, claim_turn, list_suspended
from .opening import ha_turn
from .releasing import release_turn
from .run import TurnRun, run_turn
from .turn import Turn

__all__ = ["SuspendedTurn", "Turn", "TurnRun", "claim_turn", "ha_turn", "list_suspended", "release_turn", "run_turn"]
