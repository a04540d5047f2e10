"""Changing the certificates of a running lab, in the order in which a careful operator does it."""

from __future__ import annotations

from dataclasses import replace

from .certificates import Certificates, Issuer
from .errors import LabError
from .processes import Processes
from .servers import tls_contexts

_DIRECTIVE = "tls-cert-file"  # setting it, even to the same path, reads all the TLS files again


class Authorities(Processes):
    """New certificates of the same authority, or of a new one: add it, rotate the certificates, drop the old one.

    Each step writes new files for clients, which `config` and `certificates` name from then on: clients made before
    keep theirs. New connections see the change, old ones stay. The Sentinels cannot load certificates while they run:
    they are restarted in turn, which takes about 2 s in all.
    """

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

    @property
    def _issuer(self) -> Issuer:
        issuer = self._settings.issuer
        if issuer is None:
            raise LabError("this lab has no certificates; start it with tls=True")
        missing = [node.name for node in self._all_nodes() if not node.up]
        if missing:
            raise LabError(f"certificates are changed on all servers, and {', '.join(missing)} cannot be asked now")
        return issuer

    def _load(self, certificates: Certificates) -> None:
        self._settings = replace(self._settings, certificates=certificates)
        if self._settings.native_certificates:
            for node in self.nodes:
                node.ask("CONFIG", "SET", _DIRECTIVE, certificates.server_cert_file)
        self._switch_own_clients()
        for node in self._all_nodes():
            if node.proxy:
                node.proxy.use_tls(*tls_contexts(self._settings))
        if self._settings.native_certificates:
            for sentinel in self.sentinels:
                self.restart(sentinel)
                self.wait_ready()
