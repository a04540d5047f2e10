"""The workers' source of passwords: a file, as a secret that an orchestrator mounts and changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redis.credentials import CredentialProvider

from tests.failover.campaign.faults_clients import USER


@dataclass(frozen=True)
class SecretFile(CredentialProvider):
    """Reads the password anew for every connection.

    Attributes:
        path: The file that holds it.
    """

    path: Path

    def get_credentials(self) -> tuple[str, str]:
        """Return user name and password."""
        return USER, self.path.read_text()

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the same."""
        return self.get_credentials()
