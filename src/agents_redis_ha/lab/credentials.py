"""Changing the passwords and certificates of a running lab, in the order in which a careful operator does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from .certificates import Certificates, Issuer
from .errors import LabError
from .node import Node
from .server_conf import SERVICE
from .servers import tls_contexts
from .settings import Settings

Whose = Literal["servers", "sentinels"]

_CERTIFICATE = "tls-cert-file"  # setting it, even to the same path, reads all the TLS files again


class Credentials:
    """Add the new one, switch the clients, drop the old one; as `Lab.credentials`.

    The changes hold over restarts. All servers have to be up.

    A step with certificates writes new files for clients, which `Lab.config` and `Lab.certificates` name from then on:
    clients made before keep theirs. New connections see the change, old ones stay. The Sentinels cannot load
    certificates while they run: they are restarted in turn, which takes about 2 s in all.

    Args:
        settings: The lab's; they hold the latest credentials.
        nodes: The data servers; the list fills up when they are created.
        sentinels: The Sentinels, likewise.
        restart: Restarts a server, and returns when all have settled.
    """

    def __init__(
        self, settings: Settings, nodes: Sequence[Node], sentinels: Sequence[Node], restart: Callable[[Node], None]
    ) -> None:
        self._settings = settings
        self._nodes = nodes
        self._sentinels = sentinels
        self._restart = restart

    def add_password(self, new: str, *, of: Whose = "servers") -> None:
        """Have a new password accepted beside the old one, and used between the servers.

        `Lab.config` and `Lab.url` tell the new one from now on.

        Args:
            new: The password.
            of: The data servers', or the Sentinels' own.

        Raises:
            LabError: The lab was started without that password, or not every server is up.
        """
        self._present_password(of)
        for node in self._nodes if of == "servers" else self._sentinels:
            node.ask("ACL", "SETUSER", "default", f">{new}")
        if of == "servers":
            for node in self._nodes:
                node.ask("CONFIG", "SET", "masterauth", new)
                node.ask("CONFIG", "REWRITE")
            for sentinel in self._sentinels:
                sentinel.ask("SENTINEL", "SET", SERVICE, "auth-pass", new)
            self._settings.password = new
        else:
            for sentinel in self._sentinels:
                sentinel.ask("SENTINEL", "CONFIG", "SET", "sentinel-pass", new)
            self._settings.sentinel_password = new
        self._switch_own_clients()

    def drop_password(self, *, of: Whose = "servers") -> None:
        """Have every password refused but the one added last.

        Connections that have logged in stay: `kill_clients` makes them log in again.

        Args:
            of: The data servers', or the Sentinels' own.

        Raises:
            LabError: The lab was started without that password, or not every server is up.
        """
        present = self._present_password(of)
        if of == "servers":
            for node in self._nodes:
                node.ask("CONFIG", "SET", "requirepass", present)  # which drops the others
                node.ask("CONFIG", "REWRITE")
        else:
            for sentinel in self._sentinels:  # which have no CONFIG
                sentinel.ask("ACL", "SETUSER", "default", "resetpass", f">{present}")
                sentinel.ask("SENTINEL", "FLUSHCONFIG")

    def rotate_password(self, new: str, *, of: Whose = "servers") -> None:
        """Add the new password and drop the old one at once, without waiting for any client.

        Args:
            new: The password.
            of: The data servers', or the Sentinels' own.

        Raises:
            LabError: The lab was started without that password, or not every server is up.
        """
        self.add_password(new, of=of)
        self.drop_password(of=of)

    def rotate_certificates(self) -> None:
        """Give the servers and the clients new certificates, issued by the latest authority.

        Raises:
            LabError: The lab was started without TLS, or not every server is up.
        """
        issuer = self._issuer
        self._load(issuer.issue())

    def add_authority(self) -> None:
        """Create a new authority, which servers and clients trust beside the old one; it has issued nothing yet.

        Raises:
            LabError: The lab was started without TLS, or not every server is up.
        """
        issuer = self._issuer
        issuer.add_authority()
        self._load(issuer.publish())

    def drop_authority(self) -> None:
        """Trust the latest authority alone; `rotate_certificates` has to come before.

        Raises:
            LabError: The lab was started without TLS, or not every server is up.
        """
        issuer = self._issuer
        issuer.drop_authority()
        self._load(issuer.publish())

    def _present_password(self, of: Whose) -> str:
        present = self._settings.password if of == "servers" else self._settings.sentinel_password
        if not present or (of == "sentinels" and not self._sentinels):
            option = "password=" if of == "servers" else "sentinel_password="
            raise LabError(f"the {of} of this lab have no password; start it with {option}")
        self._demand_all_up("a password is")
        return present

    @property
    def _issuer(self) -> Issuer:
        if self._settings.issuer is None:
            raise LabError("this lab has no certificates; start it with tls=True")
        self._demand_all_up("certificates are")
        return self._settings.issuer

    def _demand_all_up(self, subject: str) -> None:
        missing = [node.name for node in (*self._nodes, *self._sentinels) if not node.up]
        if missing:
            raise LabError(f"{subject} changed on all servers, and {', '.join(missing)} cannot be asked now")

    def _load(self, certificates: Certificates) -> None:
        self._settings.certificates = certificates
        if self._settings.native_certificates:
            for node in self._nodes:
                node.ask("CONFIG", "SET", _CERTIFICATE, certificates.server_cert_file)
        self._switch_own_clients()
        for node in (*self._nodes, *self._sentinels):
            if node.proxy:
                node.proxy.use_tls(*tls_contexts(self._settings))
        if self._settings.native_certificates:
            for sentinel in self._sentinels:
                self._restart(sentinel)

    def _switch_own_clients(self) -> None:
        """Use the latest credentials for the lab's own connections from now on."""
        for nodes, password in (
            (self._nodes, self._settings.password),
            (self._sentinels, self._settings.sentinel_password),
        ):
            for node in nodes:
                node.use_client_options(self._settings.client_options(password))
