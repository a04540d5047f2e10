"""One server."""

from __future__ import annotations

from typing import ClassVar

from .errors import LabError
from .lab import Lab
from .node import Node
from .server_conf import data_directives
from .servers import launch, prepare_data
from .settings import Topology
from .waiting import WAIT_SECONDS


class StandaloneLab(Lab):
    """One server, or one server behind a proxy."""

    topology: ClassVar[Topology] = "standalone"

    def primary(self, key: str | bytes | None = None) -> Node:
        """Return the server."""
        return self.nodes[0]

    def promote(self, node: Node, timeout: float = WAIT_SECONDS) -> None:
        """Raise: a single server has no replica that could take over."""
        raise LabError("a standalone lab has no replica to promote")

    def _build(self) -> None:
        self.nodes += prepare_data(self._settings, 1)
        self._attach(self.nodes)
        node = self.nodes[0]
        node.write_conf(data_directives(self._settings, node))
        launch(self.nodes)

    def _unsettled(self) -> str | None:
        return None if self.nodes[0].role() == "primary" else "the server to answer"

    def _successor(self, old: Node) -> Node | None:
        raise LabError("a standalone lab has no replica that could take over")
