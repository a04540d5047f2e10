"""Creating and starting the servers of a lab."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from .node import Node
from .ports import reserve_port
from .settings import Settings

ANSWER_SECONDS = 15.0


def prepare(settings: Settings, name: str, *arguments: str, password: str | None, with_bus: bool = False) -> Node:
    """Return a node with its port and directory; its configuration is still to be written."""
    directory = settings.path / name
    directory.mkdir()
    return Node(
        name,
        reserve_port(with_bus=with_bus),
        directory,
        [str(settings.server.path), "server.conf", *arguments],
        settings.client_options(password),
    )


def prepare_data(settings: Settings, count: int, *, with_bus: bool = False) -> list[Node]:
    """Return so many data servers, not yet started."""
    names = [f"data-{number}" for number in range(1, count + 1)]
    return [prepare(settings, name, password=settings.password, with_bus=with_bus) for name in names]


def launch(nodes: Sequence[Node]) -> None:
    """Start the servers, all at once, and return when each of them answers.

    Raises:
        LabError: One did not start; the message holds the end of its log.
    """
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_until_answering(ANSWER_SECONDS)


def put_proxy(settings: Settings, node: Node, *, wanted: bool) -> None:
    """Put a proxy in front of a server if it is wanted, or if only a proxy can speak TLS for it."""
    if wanted or (settings.certificates and not settings.native_certificates):
        node.put_proxy(*tls_contexts(settings))


def tls_contexts(settings: Settings) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Return how a proxy speaks TLS to clients, and to the server; None where it does not."""
    certificates, native = settings.certificates, settings.native_certificates
    return (
        certificates.server_context(mutual=settings.mutual_tls) if certificates else None,
        native.client_context() if native else None,
    )
