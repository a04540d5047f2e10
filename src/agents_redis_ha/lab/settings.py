"""What a lab was asked to be."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .binaries import ServerBinary
from .certificates import Certificates, Issuer

Topology = Literal["standalone", "sentinel", "cluster"]
Directives = Mapping[str, str | int | Sequence[str]]


@dataclass(kw_only=True)
class Settings:
    """The options of `lab.start`, checked, with the directory and the certificates in place.

    The passwords and the certificates are those of now: `Credentials` changes them for all who hold the settings.
    """

    server: ServerBinary
    directory: tempfile.TemporaryDirectory[str]
    certificates: Certificates | None
    issuer: Issuer | None = field(repr=False)
    mutual_tls: bool
    proxies: bool
    links: bool
    persist: bool
    down_after_ms: int
    node_timeout_ms: int
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)
    config: Directives = field(repr=False)

    @property
    def path(self) -> Path:
        """The lab's temporary directory."""
        return Path(self.directory.name)

    @property
    def native_certificates(self) -> Certificates | None:
        """The certificates, if the servers themselves speak TLS; None if only proxies do, or if there is no TLS."""
        return self.certificates if self.server.native_tls else None

    def client_options(self, password: str | None) -> dict[str, Any]:
        """Return the redis-py options that a direct connection to a server needs."""
        options: dict[str, Any] = {"password": password}
        if self.native_certificates:
            options.update(
                ssl=True,
                ssl_ca_certs=self.native_certificates.ca_file,
                ssl_certfile=self.native_certificates.cert_file,
                ssl_keyfile=self.native_certificates.key_file,
            )
        return options
