"""What strikes, at a moment or at a point of a request.

A fault is a function of the world; it returns False if the request that it struck at goes no further. What it breaks
for a time it undoes by `World.heal_later`, so that the run can end with servers that are well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agents_redis_ha import session_keys
from tests.simulation.flows import Flow
from tests.simulation.machines import PREFIX
from tests.simulation.plan import Fault
from tests.simulation.sentinels.servers import SERVICE

if TYPE_CHECKING:
    from tests.simulation.world import World

Strike = Callable[["World", Fault, "Flow | None", bytes], "bool | None"]

# -- at a request


def cut_before(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The connection breaks, and the server never gets the request."""
    if flow is not None:
        flow.cut()
    return False


def cut_after(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The server does what it was asked, and its reply is lost with the connection."""
    if flow is not None:
        on_server = flow.on_server
        flow.cut()
        on_server(data)
    return False


def cut_reply(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """A part of the reply arrives, then the connection breaks."""
    if flow is None:
        return True

    def part(reply: bytes) -> bool:
        flow.back.tap = None
        cut = reply[: max(1, int(len(reply) * fault.arguments["part"]))]
        world.note(flow.client, f"hears {len(cut)} of {len(reply)} bytes from {flow.server}")
        flow.on_client(cut)
        flow.cut()
        return False

    flow.back.tap = part
    return True


def stall_request(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The request arrives much later."""
    if flow is None:
        return True
    loop, there = world.loop, flow.there
    there.held_until = loop.time() + fault.arguments["seconds"]
    world.lasts_until(there.held_until)
    tap, there.tap = there.tap, None
    loop.deliver_at(there.held_until, None, there._arrive, loop.time(), data)

    def goes_on() -> None:
        there.tap = tap

    loop.deliver_at(there.held_until, None, goes_on)
    return False


def split_request(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """A part of the request arrives, and the rest later: a server may serve others in between."""
    if flow is None:
        return True
    at = max(1, int(len(data) * fault.arguments["part"]))
    loop, there = world.loop, flow.there
    there.held_until = loop.time() + fault.arguments["seconds"]
    world.lasts_until(there.held_until)
    tap, there.tap = there.tap, None
    flow.on_server(data[:at])
    loop.deliver_at(there.held_until, None, there._arrive, loop.time(), data[at:])

    def goes_on() -> None:
        there.tap = tap

    loop.deliver_at(there.held_until, None, goes_on)
    return False


def stall_reply(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The reply arrives much later."""
    if flow is not None:
        flow.back.held_until = world.loop.time() + fault.arguments["seconds"]
        world.lasts_until(flow.back.held_until)
    return True


def crash_at_request(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The server's process ends: before it did anything, before its reply has left, or behind it."""
    machine = next(m for m in world.servers.machines if flow is None or m.name == flow.server)
    when = fault.arguments["when"]
    if when != "before" and flow is not None:
        flow.on_server(data)
    machine.crash(silently=when == "after")
    _restart_later(world, fault, machine.name)
    return False


def kill_at_request(world: World, fault: Fault, flow: Flow | None, data: bytes) -> bool:
    """The process that asked ends while its request is on the way."""
    worker = next((w for w in world.workers if flow is not None and flow.client == f"h{w.number}"), None)
    if worker is not None:
        _kill(world, worker.number, fault.arguments["seconds"])
    return True


# -- at a moment


def cut_all(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """All connections to a server break."""
    for each in world.network.flows_of(_target(world, fault)):
        each.cut()


def forget_all(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A NAT forgets the connections of a process."""
    for each in world.network.flows_of(f"h{fault.arguments['process']}"):
        each.forget()


def half_open(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """The server's end of all connections is gone, and their clients do not know."""
    for each in world.network.flows_of(_target(world, fault)):
        if each.client.startswith("h"):
            each.on_server(None)
            each.server_vanishes()


def pause_server(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A server stands still (SIGSTOP); it goes on by itself."""
    machine = _machine(world, fault)
    if machine.is_up:
        machine.server.pause(fault.arguments["seconds"])
        world.lasts_until(world.loop.time() + fault.arguments["seconds"])


def crash(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A server's process ends, and is started again with what it kept."""
    machine = _machine(world, fault)
    machine.crash(silently=fault.arguments.get("silently", False))
    _restart_later(world, fault, machine.name)


def pause_process(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A process stands still, its event loop too."""
    process = world.workers[fault.arguments["process"]].process
    if process is not None and process.held is None:
        process.stop()
        world.heal_later(fault.arguments["seconds"], lambda: world.loop.resume(process))


def kill_process(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A process ends (SIGKILL), and another one takes its place, which knows nothing."""
    _kill(world, fault.arguments["process"], fault.arguments["seconds"])


def partition(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """Nothing passes between some hosts and all others, or only some others, one way or both."""
    ways = fault.arguments["ways"]
    inside = _hosts(world, fault.arguments["inside"])
    others = _hosts(world, fault.arguments["others"]) if "others" in fault.arguments else world.hosts
    pairs = [(a, b) for a in inside for b in others if b not in inside]
    blocked = (pairs if "there" in ways else []) + ([(b, a) for a, b in pairs] if "back" in ways else [])
    for source, target in blocked:
        world.network.block(source, target)

    def heal() -> None:
        for source, target in blocked:
            world.network.unblock(source, target)

    world.heal_later(fault.arguments["seconds"], heal)


def slow_link(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """What a process and a server send each other takes long."""
    host, target = f"h{fault.arguments['process']}", _target(world, fault)
    links = [world.network.link(host, target), world.network.link(target, host)]
    for link in links:
        link.latency, link.jitter = fault.arguments["latency"], fault.arguments["latency"]
        link.bytes_per_second = fault.arguments.get("bytes_per_second")

    def heal() -> None:
        for link in links:
            world.network.restore(link)

    world.heal_later(fault.arguments["seconds"], heal)


def step_clock(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A server's wall clock steps."""
    _machine(world, fault).clock.step(fault.arguments["seconds"])


def flush_scripts(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """SCRIPT FLUSH."""
    machine = _machine(world, fault)
    if machine.is_up:
        machine.ask(b"SCRIPT", b"FLUSH")


def kill_clients(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """CLIENT KILL TYPE normal."""
    machine = _machine(world, fault)
    if machine.is_up:
        machine.ask(b"CLIENT", b"KILL", b"TYPE", b"normal")


def fill_memory(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """The server has reached ``maxmemory`` and may evict nothing."""
    machine = _machine(world, fault)
    if not machine.is_up:
        return
    machine.ask(b"CONFIG", b"SET", b"maxmemory", b"1")

    def heal() -> None:
        # A request may be lost: a CLIENT KILL that a standing server reads first closes its connection, too. No one
        # sends it again here, and a server that is full refuses the MULTI in which a Sentinel makes it a replica.
        machine.server.config.change("maxmemory", "0")

    world.heal_later(fault.arguments["seconds"], heal)


def evict(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """The server is short of memory and evicts some keys, or some of those that expire."""
    machine = _machine(world, fault)
    if not machine.is_up or machine.server.replication.primary is not None:
        return
    keyspace = machine.server.keyspace
    keys = sorted(keyspace.expires if fault.arguments["policy"] == "volatile" else keyspace.values)
    parts = tuple(b":%b" % part.encode() for part in fault.arguments.get("parts", ()))
    first, each = fault.arguments["first"], fault.arguments["each"]
    chosen = [key for at, key in enumerate(keys) if (at + first) % each == 0 and (not parts or key.endswith(parts))]
    for key in chosen:
        keyspace.delete(key)
        machine.server.replication.feed([[b"DEL", key]])
        machine.server.stats["evicted_keys"] += 1
    world.note(machine.name, f"evicts {b' '.join(chosen).decode()}")
    # A fence of a process that misses what is gone makes no session.
    left = [key for key, value in keyspace.values.items() if not key.endswith(b":meta") or b"version" in value]
    world.note_evictions(machine.name, left, chosen)


def delete(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A client deletes a session by hand (DEL)."""
    machine, name = _machine(world, fault), fault.arguments["session"]
    if machine.is_up:
        keys = session_keys(PREFIX, name)
        machine.ask(b"DEL", keys.items, keys.meta, keys.ops)
        world.note_removal(machine.name, name)


def fail_over(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """SENTINEL FAILOVER, while the primary is alive."""
    _sentinel(world, fault).ask(b"SENTINEL", b"FAILOVER", SERVICE.encode())


def cluster_fail_over(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """CLUSTER FAILOVER, while the primary is alive."""
    servers: Any = world.servers  # those of a cluster
    servers.fail_over(fault.arguments["replica"])


def move_slot(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A session's slot moves to another primary."""
    servers: Any = world.servers
    servers.move_slot(fault.arguments["session"], fault.arguments["pause"])


def move_name(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """The other server takes over behind the name; old connections lead to the old one for a while."""
    servers: Any = world.servers
    servers.move_name(fault.arguments["seconds"])


def crash_sentinel(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A Sentinel ends, and is started again."""
    machine = _sentinel(world, fault)
    machine.crash()
    world.heal_later(fault.arguments["seconds"], machine.start)


def pause_sentinel(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A Sentinel stands still; it goes on by itself."""
    _sentinel(world, fault).sentinel.stand_still(fault.arguments["seconds"])
    world.lasts_until(world.loop.time() + fault.arguments["seconds"])


def step_sentinel_clock(world: World, fault: Fault, flow: Flow | None, data: bytes) -> None:
    """A Sentinel's wall clock steps."""
    _sentinel(world, fault).clock.step(fault.arguments["seconds"])


KINDS: Mapping[str, Strike] = {
    each.__name__.replace("_", "-"): each
    for each in (
        cut_before,
        cut_after,
        cut_reply,
        stall_request,
        split_request,
        stall_reply,
        crash_at_request,
        kill_at_request,
        cut_all,
        forget_all,
        half_open,
        pause_server,
        crash,
        pause_process,
        kill_process,
        partition,
        slow_link,
        step_clock,
        flush_scripts,
        kill_clients,
        fill_memory,
        evict,
        delete,
        fail_over,
        cluster_fail_over,
        move_slot,
        move_name,
        crash_sentinel,
        pause_sentinel,
        step_sentinel_clock,
    )
}


def _target(world: World, fault: Fault) -> str:
    return str(_machine(world, fault).name)


def _machine(world: World, fault: Fault) -> Any:
    """Return the server that a fault is about: one by its number, or the primary of that moment."""
    number = fault.arguments.get("server")
    return world.servers.primary() if number is None else world.servers.machines[number]


def _sentinel(world: World, fault: Fault) -> Any:
    """Return the Sentinel that a fault is about, by its number."""
    servers: Any = world.servers  # those of a topology with Sentinels
    return servers.sentinels[fault.arguments["sentinel"]]


def _hosts(world: World, names: tuple[str, ...]) -> list[str]:
    """Return hosts by their names; ``primary`` is the one of this moment."""
    return [world.servers.primary().name if name == "primary" else name for name in names]


def _restart_later(world: World, fault: Fault, name: str) -> None:
    machine = next(m for m in world.servers.machines if m.name == name)
    world.heal_later(fault.arguments["seconds"], lambda: machine.restart(fault.arguments["keep"]))


def _kill(world: World, number: int, seconds: float) -> None:
    worker = world.workers[number]
    process = worker.process
    if process is None:
        return
    worker.kill()
    world.note(process.name, "is killed")
    for each in world.network.flows_of(f"h{number}"):
        if each.back.owner is process:
            each.there.send(None)
    world.heal_later(seconds, worker.start)
