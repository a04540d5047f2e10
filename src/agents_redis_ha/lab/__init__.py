"""Real local Redis topologies with faults, for demonstrations and tests.

from agents_redis_ha import lab

with lab.start("sentinel", proxies=True) as topology:
    topology.kill(topology.primary())
"""

from .binaries import ServerBinary, find_server
from .certificates import Certificates, issue_certificates
from .conditions import configure, fail_saves, fill_memory, hold_loading, kill_clients, limit_clients
from .credentials import Credentials
from .errors import LabError
from .lab import Lab
from .links import Links
from .node import Node
from .proxy import Proxy
from .settings import Topology
from .slots import SlotMove
from .starting import start
from .waiting import wait_until

__all__ = [
    "Certificates",
    "Credentials",
    "Lab",
    "LabError",
    "Links",
    "Node",
    "Proxy",
    "ServerBinary",
    "SlotMove",
    "Topology",
    "configure",
    "fail_saves",
    "fill_memory",
    "find_server",
    "hold_loading",
    "issue_certificates",
    "kill_clients",
    "limit_clients",
    "start",
    "wait_until",
]
