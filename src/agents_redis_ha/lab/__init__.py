"""Real local Redis topologies with faults, for demonstrations and tests.

from agents_redis_ha import lab

with lab.start("sentinel", proxies=True) as topology:
    topology.kill(topology.primary())
"""

from .binaries import ServerBinary, find_server
from .certificates import Certificates, issue_certificates
from .errors import LabError
from .lab import Lab
from .node import Node
from .proxy import Proxy
from .settings import Topology
from .slots import SlotMove
from .starting import start
from .waiting import wait_until

__all__ = [
    "Certificates",
    "Lab",
    "LabError",
    "Node",
    "Proxy",
    "ServerBinary",
    "SlotMove",
    "Topology",
    "find_server",
    "issue_certificates",
    "start",
    "wait_until",
]
