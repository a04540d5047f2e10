"""Throwaway certificates for one lab."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Paths of PEM files, in the lab's temporary directory.

    Attributes:
        ca_file: The authority that signed all of the following.
        cert_file: A client's certificate.
        key_file: Its private key.
        server_cert_file: The servers' certificate, for 127.0.0.1, localhost and ::1.
        server_key_file: Its private key.
        other_ca_file: An authority that signed none of them, for negative tests.
    """

    ca_file: str
    cert_file: str
    key_file: str
    server_cert_file: str
    server_key_file: str
    other_ca_file: str

    def server_context(self, *, mutual: bool = False) -> ssl.SSLContext:
        """Return a server's context; with `mutual` it demands a certificate of the client."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain(self.server_cert_file, self.server_key_file)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context, which trusts this authority and shows the certificate."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


def issue_certificates(directory: Path) -> Certificates:
    """Create an authority, a server and a client certificate, and an unrelated authority.

    Args:
        directory: An existing directory for the files.

    Raises:
        LabError: `trustme` is not installed.
    """
    try:
        import trustme  # optional: only TLS labs need it
    except ImportError as error:
        raise LabError(
            "a lab with TLS needs the package trustme for its certificates. "
            "Install it with: pip install 'openai-agents-redis-ha[lab]'"
        ) from error
    authority, other = trustme.CA(), trustme.CA()
    server = authority.issue_cert(*_NAMES)
    client = authority.issue_cert("client@agents-redis-ha.invalid")
    paths = {
        "ca_file": authority.cert_pem,
        "cert_file": client.cert_chain_pems[0],
        "key_file": client.private_key_pem,
        "server_cert_file": server.cert_chain_pems[0],
        "server_key_file": server.private_key_pem,
        "other_ca_file": other.cert_pem,
    }
    files = {name: directory / f"{name.removesuffix('_file')}.pem" for name in paths}
    for name, blob in paths.items():
        blob.write_to_path(str(files[name]))
    return Certificates(**{name: str(path) for name, path in files.items()})
