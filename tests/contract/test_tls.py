"""What is particular to TLS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from agents_redis_ha import TLSConfig, ha_session, lab

ITEM: Any = {"role": "user", "content": "hello"}


@pytest.mark.skipif(
    not lab.find_server().native_tls, reason="this server was built without TLS: a proxy stands in for it"
)
async def test_rotated_certificates_are_followed_without_a_restart(tmp_path: Path, session_id: str) -> None:
    with lab.start("standalone", mutual_tls=True) as servers:
        old, ca_file = servers.certificates, tmp_path / "ca.pem"
        shutil.copy(old.ca_file, ca_file)
        tls = TLSConfig(ca_file=ca_file, cert_file=old.cert_file, key_file=old.key_file)
        session = ha_session(servers.config(tls=tls), session_id)
        await session.add_items([ITEM])
        new_files = tmp_path / "new"
        new_files.mkdir()
        new = lab.issue_certificates(new_files)
        admin = servers.client(servers.nodes[0])
        admin.config_set("tls-cert-file", new.server_cert_file, "tls-key-file", new.server_key_file)
        shutil.copy(new.ca_file, ca_file)
        await session.add_items([ITEM])  # an open connection goes on
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for _ in range(3):
            await session.add_items([ITEM])
        assert await session.get_items() == [ITEM] * 5
