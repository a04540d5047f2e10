"""Makes certificates, passwords and access rules for ``tls.yml``: once, into volumes that go with ``down --volumes``.

Into ``/servers``: the authority's certificate, a certificate and key of each server, the ACL files, what servers need
to log in at each other, and ``cli``, a redis-cli that is logged in. Into ``/client``: the authority's certificate, the
client's certificate and key, and its passwords as environment variables. The authority's key is kept nowhere.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import trustme

from agents_redis_ha import acl_rule

SERVERS, CLIENT = Path("/servers"), Path("/client")
SERVER_UID, CLIENT_UID = 999, 1000
DONE = SERVERS / "done"

# https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ names the commands of the first two.
DATA_USERS = {
    "sentinel": "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill",
    "replica": "+psync +replconf +ping",
    "app": " ".join(acl_rule("agents:ha")),
    "operator": "+ping +info +role",
}
# `sentinel|masters` is what redis-py's own Sentinel client asks for; sessions do without.
SENTINEL_USERS = {
    "sentinel": "allchannels +ping +info +role +publish +subscribe +sentinel|is-master-down-by-addr +client|setname",
    "app": "resetchannels &+failover-state-* &+promoted-slave &+switch-master -@all +sentinel|master "
    "+sentinel|get-master-addr-by-name +sentinel|slaves +sentinel|sentinels +sentinel|masters +subscribe +ping",
    "operator": "+ping +info +sentinel",
}

CLI = """\
#!/bin/sh
# redis-cli over mutual TLS, logged in as the operator.
REDISCLI_AUTH={password} exec redis-cli --user operator --no-auth-warning \\
  --tls --cacert /servers/ca.pem --cert /servers/$HOSTNAME.pem --key /servers/$HOSTNAME.key -h $HOSTNAME "$@"
"""


def write(path: Path, content: bytes | str, owner: int, mode: int = 0o400) -> None:
    """Write a file that its owner alone can read."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    os.chown(path, owner, owner)


def access_rules(users: dict[str, str], passwords: dict[str, str]) -> str:
    """An ACL file with these users and no others."""
    rules = [
        f"user {name} on #{hashlib.sha256(passwords[name].encode()).hexdigest()} {rule}" for name, rule in users.items()
    ]
    return "\n".join(["user default off", *rules, ""])


def issue(authority: trustme.CA, folder: Path, file: str, name: str, owner: int) -> None:
    """Write a certificate for a name, and its key."""
    certificate = authority.issue_cert(name)
    write(folder / f"{file}.pem", b"".join(blob.bytes() for blob in certificate.cert_chain_pems), owner, 0o444)
    write(folder / f"{file}.key", certificate.private_key_pem.bytes(), owner)


def main() -> None:
    """Make everything, unless it is there."""
    if DONE.exists():
        return
    authority = trustme.CA()
    for folder, owner in ((SERVERS, SERVER_UID), (CLIENT, CLIENT_UID)):
        write(folder / "ca.pem", authority.cert_pem.bytes(), owner, 0o444)
    for server in os.environ["SERVERS"].split():
        issue(authority, SERVERS, server, server, SERVER_UID)
    issue(authority, CLIENT, "app", "app@client.invalid", CLIENT_UID)
    data, sentinels = ({name: secrets.token_hex(24) for name in users} for users in (DATA_USERS, SENTINEL_USERS))
    operator = data["operator"] = sentinels["operator"]
    write(SERVERS / "data.acl", access_rules(DATA_USERS, data), SERVER_UID)
    write(SERVERS / "sentinel.acl", access_rules(SENTINEL_USERS, sentinels), SERVER_UID)
    write(SERVERS / "data.conf", f"masteruser replica\nmasterauth {data['replica']}\n", SERVER_UID)
    logins = (
        f"sentinel auth-user mymaster sentinel\nsentinel auth-pass mymaster {data['sentinel']}\n"
        f"sentinel sentinel-user sentinel\nsentinel sentinel-pass {sentinels['sentinel']}\n"
    )
    write(SERVERS / "sentinel.conf", logins, SERVER_UID)
    write(SERVERS / "cli", CLI.format(password=operator), SERVER_UID, 0o500)
    variables = {"PASSWORD": data["app"], "SENTINEL_PASSWORD": sentinels["app"]}
    exports = "".join(f"export AGENTS_REDIS_HA_{name}={secret}\n" for name, secret in variables.items())
    write(CLIENT / "env", exports, CLIENT_UID)
    DONE.touch()


main()
