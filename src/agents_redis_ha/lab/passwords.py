"""Changing the passwords of a running lab, in the order in which a careful operator does it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from .errors import LabError
from .running import Running
from .server_conf import SERVICE

Whose = Literal["servers", "sentinels"]


class Passwords(Running):
    """Add the new password, switch the clients, drop the old one.

    The changes hold over restarts. All servers have to be up.
    """

    def add_password(self, new: str, *, of: Whose = "servers") -> None:
        """Have a new password accepted beside the old one, and used between the servers.

        `config` and `url` tell the new one from now on.

        Args:
            new: The password.
            of: The data servers', or the Sentinels' own.

        Raises:
            LabError: The lab was started without that password, or not every server is up.
        """
        self._check(of)
        for node in self.nodes if of == "servers" else self.sentinels:
            node.ask("ACL", "SETUSER", "default", f">{new}")
        if of == "servers":
            for node in self.nodes:
                node.ask("CONFIG", "SET", "masterauth", new)
                node.ask("CONFIG", "REWRITE")
            for sentinel in self.sentinels:
                sentinel.ask("SENTINEL", "SET", SERVICE, "auth-pass", new)
            self._settings = replace(self._settings, password=new)
        else:
            for sentinel in self.sentinels:
                sentinel.ask("SENTINEL", "CONFIG", "SET", "sentinel-pass", new)
            self._settings = replace(self._settings, sentinel_password=new)
        self._switch_own_clients()

    def drop_password(self, *, of: Whose = "servers") -> None:
        """Have every password refused but the one added last.

        Connections that have logged in stay: `kill_clients` makes them log in again.

        Args:
            of: The data servers', or the Sentinels' own.

        Raises:
            LabError: The lab was started without that password, or not every server is up.
        """
        present = self._check(of)
        if of == "servers":
            for node in self.nodes:
                node.ask("CONFIG", "SET", "requirepass", present)  # which drops the others
                node.ask("CONFIG", "REWRITE")
        else:
            for sentinel in self.sentinels:  # which have no CONFIG
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

    def _check(self, of: Whose) -> str:
        present = self._settings.password if of == "servers" else self._settings.sentinel_password
        if not present or (of == "sentinels" and not self.sentinels):
            option = "password=" if of == "servers" else "sentinel_password="
            raise LabError(f"the {of} of this lab have no password; start it with {option}")
        missing = [node.name for node in self._all_nodes() if not node.up]
        if missing:
            raise LabError(f"a password is changed on all servers, and {', '.join(missing)} cannot be asked now")
        return present
