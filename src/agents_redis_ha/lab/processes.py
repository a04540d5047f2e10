"""Ending, stopping and starting the servers of a lab."""

from __future__ import annotations

from .node import Node
from .running import Running
from .servers import ANSWER_SECONDS

_STOP_SECONDS = 15.0  # longer than the 10 s that a server from 7.0 on waits for its replicas


class Processes(Running):
    """Faults of whole servers."""

    def kill(self, node: Node) -> None:
        """End the process with SIGKILL; connections break at once."""
        node.kill()

    def stop(self, node: Node) -> None:
        """End the process with SIGTERM, as an orderly shutdown does."""
        node.terminate(_STOP_SECONDS)

    def stall(self, node: Node) -> None:
        """Stop the process with SIGSTOP: it accepts connections but answers nothing."""
        node.freeze()

    def resume(self, node: Node) -> None:
        """Let a stalled process go on (SIGCONT). It does not know what it missed."""
        node.thaw()

    def restart(self, node: Node, timeout: float = ANSWER_SECONDS) -> None:
        """Start the server again on its port and with its files, and return when it answers.

        A server that is up is stopped first. A former primary comes back as a primary, until
        the Sentinels or the cluster demote it: `wait_ready` waits for that.

        Raises:
            LabError: It does not start; the message holds the end of its log.
        """
        if node.alive:
            self.stop(node)
        node.launch()
        node.wait_until_answering(timeout)
        self._came_up(node)

    def restart_empty(self, node: Node, timeout: float = ANSWER_SECONDS) -> None:
        """Kill the server, remove its data, start it again at once, and return when it answers.

        It keeps what it knows of its cluster. This takes about 0.1 s. If `down_after_ms` (`node_timeout_ms`) is longer,
        there is no failover: a primary stays one, and its replicas copy the empty data; `wait_ready` waits for that. A
        primary of a cluster answers CLUSTERDOWN for its first 2 s (Redis's own delay after a restart).

        Raises:
            LabError: It does not start; the message holds the end of its log.
        """
        if node.alive:
            self.kill(node)
        node.remove_data()
        self.restart(node, timeout)

    def stop_sentinels(self, *, all_but: int = 0) -> None:
        """Stop (SIGTERM) the Sentinels that are up, the last ones first, until `all_but` are left."""
        for sentinel in [sentinel for sentinel in self.sentinels if sentinel.up][all_but:]:
            self.stop(sentinel)

    def start_sentinels(self) -> None:
        """Start the Sentinels that are down, and return when they answer."""
        for sentinel in self.sentinels:
            if not sentinel.alive:
                self.restart(sentinel)

    def rolling_restart(self, timeout: float = 30.0) -> None:
        """Restart every data server, as an operator does for an upgrade, and return when all have settled.

        First the replicas; then each primary, after an orderly failover to a replica. All settle between two restarts.

        Args:
            timeout: Seconds to wait for each step.

        Raises:
            LabError: A step has not come about in time.
        """
        primaries = self.primaries()
        for node in [node for node in self.nodes if node not in primaries] + primaries:
            heirs = self.replicas_of(node)
            if heirs and node.role() == "primary":
                self.promote(heirs[0], timeout)
            self.restart(node, timeout)
            self.wait_ready(timeout)
