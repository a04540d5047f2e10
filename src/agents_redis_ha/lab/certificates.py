"""Throwaway certificates for one lab."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError

if TYPE_CHECKING:
    import trustme

_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Paths of PEM files, in the lab's temporary directory.

    Attributes:
        ca_file: The authority that signed all of the following; during a change, two of them.
        cert_file: A client's certificate.
        key_file: Its private key.
        server_ca_file: The authorities that the servers trust.
        server_cert_file: The servers' certificate, for 127.0.0.1, localhost and ::1.
        server_key_file: Its private key.
        other_ca_file: An authority that signed none of them, for negative tests.
    """

    ca_file: str
    cert_file: str
    key_file: str
    server_ca_file: str
    server_cert_file: str
    server_key_file: str
    other_ca_file: str

    def server_context(self, *, mutual: bool = False) -> ssl.SSLContext:
        """Return a server's context; with `mutual` it demands a certificate of the client."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.server_ca_file)
        context.load_cert_chain(self.server_cert_file, self.server_key_file)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context, which trusts this authority and shows the certificate."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


class Issuer:
    """Writes certificates into a directory, again and again.

    The servers' files keep their names, so that a server loads the new ones by reading them again. The clients' get
    new names each time, so that a client that was made before goes on with the old ones.

    Args:
        directory: An existing directory for the files.

    Raises:
        LabError: `trustme` is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            import trustme  # optional: only TLS labs need it
        except ImportError as error:
            raise LabError(
                "a lab with TLS needs the package trustme for its certificates. "
                "Install it with: pip install 'openai-agents-redis-ha[lab]'"
            ) from error
        self._directory = directory
        self._create = trustme.CA
        self._authorities = [trustme.CA()]
        self._other = trustme.CA()
        self._written = 0

    def issue(self) -> Certificates:
        """Issue a server's and a client's certificate by the latest authority, and write all files."""
        self._server = self._authorities[-1].issue_cert(*_NAMES)
        self._client = self._authorities[-1].issue_cert("client@agents-redis-ha.invalid")
        return self.publish()

    def publish(self) -> Certificates:
        """Write all files, with the certificates issued last."""
        self._written += 1
        number = f"-{self._written}" if self._written > 1 else ""
        trusted = [authority.cert_pem for authority in self._authorities]
        return Certificates(
            ca_file=self._write(f"ca{number}", *trusted),
            cert_file=self._write(f"cert{number}", *self._client.cert_chain_pems),
            key_file=self._write(f"key{number}", self._client.private_key_pem),
            server_ca_file=self._write("server_ca", *trusted),
            server_cert_file=self._write("server_cert", *self._server.cert_chain_pems),
            server_key_file=self._write("server_key", self._server.private_key_pem),
            other_ca_file=self._write("other_ca", self._other.cert_pem),
        )

    def add_authority(self) -> None:
        """Create an authority, to be trusted beside those before."""
        self._authorities.append(self._create())

    def drop_authority(self) -> None:
        """Forget all authorities but the latest."""
        del self._authorities[:-1]

    def _write(self, name: str, *blobs: trustme.Blob) -> str:
        path = self._directory / f"{name}.pem"
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)


def issue_certificates(directory: Path) -> Certificates:
    """Create an authority, a server and a client certificate, and an unrelated authority.

    Args:
        directory: An existing directory for the files.

    Raises:
        LabError: `trustme` is not installed.
    """
    return Issuer(directory).issue()
