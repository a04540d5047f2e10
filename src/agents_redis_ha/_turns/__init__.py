"""One turn, once: a user's message, one run of the agent, one answer, published in one piece."""

from .run import TurnRun, run_turn
from .turn import Turn, ha_turn

__all__ = ["Turn", "TurnRun", "ha_turn", "run_turn"]
