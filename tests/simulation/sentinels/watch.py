"""A Sentinel's watch over the servers: its process, its connections, what it hears, and what it takes for down."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.sentinels.instance import NONE, RECONFIGURE, WAIT, Address, Instance, Line, RefusalError

PING, INFO, PUBLISH = 1.0, 10.0, 2.0
TILT_TRIGGER, TILT_PERIOD = 2.0, 30.0
LEAST_RECONNECT = 15.0
HELLO = b"__sentinel__:hello"


class Watch:
    """One Sentinel's process and its configuration file; what it does about a primary that is down comes on top.

    Attributes:
        service: The name of the primary.
        quorum: How many Sentinels have to take it for down.
        down_after: Seconds.
        primary: The server that it takes for the primary; its replicas and the other Sentinels are beside it.
        current_epoch: The highest epoch that it has met.
        config_epoch: The epoch under which the primary was elected.
        state: Of the failover that it leads, or wants to lead.
    """

    def __init__(
        self,
        address: Address,
        *,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Any],
        stream: random.Random,
        dial: Callable[[Address, Callable[[bytes], None], Callable[[], None]], Any],
        service: str,
        primary: Address,
        quorum: int,
        down_after: float,
        failover_timeout: float,
    ) -> None:
        self.address = address
        self.now, self.later, self.dial = clock, later, dial
        self._random = stream
        self.service, self.quorum = service, quorum
        self.down_after, self.failover_timeout = down_after, failover_timeout
        self.id = f"{stream.getrandbits(160):040x}"
        self.current_epoch = self.config_epoch = self.leader_epoch = 0
        self.leader: str | None = None
        self.primary = Instance("master", primary, clock())
        self.replicas: dict[Address, Instance] = {}
        self.sentinels: dict[str, Instance] = {}
        self.on_event: Callable[[str, str], None] = lambda channel, message: None
        self.is_up = False
        self._held: list[tuple[Callable[[Any], None], Any]] | None = None
        self._generation = 0
        self._reset_failover()

    def _reset_failover(self) -> None:
        self.state, self.failover_epoch = NONE, 0
        self.is_forced = self.is_failing_over = self.is_odown = False
        self.failover_start = self.state_since = 0.0
        self.promoted: Instance | None = None
        self.tilt_since: float | None = None

    def start(self) -> None:
        """Start the process, with what is in its configuration file."""
        now, address = self.now(), self.current_address()
        self.is_up, self._held = True, None
        self._generation += 1
        self._reset_failover()
        known = [each for each in (self.primary.address, *self.replicas) if each != address]
        self.primary = Instance("master", address, now)
        self.replicas = {each: Instance("slave", each, now) for each in known}
        self.sentinels = {
            run_id: Instance("sentinel", each.address, now, run_id) for run_id, each in self.sentinels.items()
        }
        self._previous = now
        self._schedule()

    def stop(self) -> None:
        """End the process."""
        self.is_up = False
        for each in self._instances():
            each.close()

    def stand_still(self, seconds: float) -> None:
        """Stop it for so long (SIGSTOP, SIGCONT)."""
        if self.is_up and self._held is None:
            self._held = []
            generation = self._generation

            def go_on() -> None:
                if generation == self._generation and self._held is not None:
                    held, self._held = self._held, None
                    for take, data in held:
                        take(data)

            self.later(seconds, go_on)

    def hold_or(self, take: Callable[[Any], None], data: Any) -> None:
        """Take what arrived, now or when it goes on."""
        if not self.is_up:
            return
        if self._held is not None:
            self._held.append((take, data))
        else:
            take(data)

    def know(self, replicas: list[Address], sentinels: Sequence[Watch]) -> None:
        """Write into its configuration file what it would have learned by itself in its first seconds."""
        self.replicas = {address: Instance("slave", address, self.now()) for address in replicas}
        self.sentinels = {
            each.id: Instance("sentinel", each.address, self.now(), each.id) for each in sentinels if each is not self
        }

    def act(self) -> None:
        """Do what is to be done about the primary now; called with each turn of the timer."""

    def finish(self) -> None:
        """Do what ends a failover; called at the end of each turn."""

    def enter(self, state: int) -> None:
        """Go on to the next state of a failover."""
        self.state, self.state_since = state, self.now()

    def _schedule(self) -> None:
        generation = self._generation
        self.later(1 / (10 + self._random.randrange(10)), lambda: self._tick(generation))

    def _instances(self) -> list[Instance]:
        return [self.primary, *self.replicas.values(), *self.sentinels.values()]

    def event(self, channel: str, instance: Instance | None = None, text: str = "") -> None:
        """Announce something."""
        primary = self.primary
        if instance is primary:
            text = f"master {self.service} {primary.address[0]} {primary.address[1]}{text}"
        elif instance is not None:
            name = instance.run_id if instance.kind == "sentinel" else instance.name
            of = f"@ {self.service} {primary.address[0]} {primary.address[1]}"
            text = f"{instance.kind} {name} {instance.address[0]} {instance.address[1]} {of}{text}"
        self.on_event(channel, text)

    def _tick(self, generation: int) -> None:
        if not self.is_up or generation != self._generation:
            return
        if self._held is None:
            now = self.now()
            self._check_tilt(now)
            self._handle(self.primary, now)
            for each in list(self.replicas.values()):
                self._handle(each, now)
            for each in list(self.sentinels.values()):
                self._handle(each, now)
            self.finish()
        self._schedule()

    def _check_tilt(self, now: float) -> None:
        if not 0 <= now - self._previous <= TILT_TRIGGER:
            self.tilt_since = now
            self.event("+tilt", None, "#tilt mode entered")
        self._previous = now

    def _handle(self, instance: Instance, now: float) -> None:
        if not instance.is_connected:
            self._reconnect(instance, now)
        if instance.is_connected:
            self._send_periodic(instance, now)
        if self.tilt_since is not None:
            if now - self.tilt_since < TILT_PERIOD:
                return
            self.tilt_since = None
            self.event("-tilt", None, "#tilt mode exited")
        self._check_down(instance, now)
        if instance is self.primary:
            self.act()

    def _reconnect(self, instance: Instance, now: float) -> None:
        if now - instance.last_reconnect < PING:
            return
        instance.last_reconnect = now
        if instance.commands is None:
            line = instance.commands = Line(self, instance.address, lambda: self._lost(instance, "commands", line))
            self._ping(instance)
        if instance.kind != "sentinel" and instance.events is None:
            events = instance.events = Line(self, instance.address, lambda: self._lost(instance, "events", events))
            events.on_push = lambda reply: self._hear(instance, reply)
            events.ask(ignore, b"SUBSCRIBE", HELLO)
        instance.is_connected = True

    def _lost(self, instance: Instance, which: str, line: Line) -> None:
        if getattr(instance, which) is line:
            setattr(instance, which, None)
            instance.is_connected = False

    def _drop(self, instance: Instance, which: str) -> None:
        line = getattr(instance, which)
        if line is not None:
            line.close()
            setattr(instance, which, None)
            instance.is_connected = False

    def _send_periodic(self, instance: Instance, now: float) -> None:
        commands = instance.commands
        if commands is None or commands.pending >= 100:
            return
        period = min(self.down_after, PING)
        if instance.kind != "sentinel" and now - instance.info_at > 1.0:
            closely = instance.kind == "slave" and (
                self.is_odown or self.is_failing_over or instance.link_down_seconds != 0
            )
            if closely or not instance.info_at or now - instance.info_at > INFO:
                commands.ask(lambda reply: self._refresh(instance, reply), b"INFO")
        if now - instance.last_pong > period and now - instance.last_ping > period / 2:
            self._ping(instance)
        if now - instance.published_at > PUBLISH:
            self._publish(instance)

    def _ping(self, instance: Instance) -> None:
        if instance.commands is not None:
            instance.commands.ask(lambda reply: self._pong(instance, reply), b"PING")
            instance.last_ping = self.now()
            instance.open_ping = instance.open_ping or instance.last_ping

    def _pong(self, instance: Instance, reply: Any) -> None:
        text = str(reply) if isinstance(reply, RefusalError) else reply.decode()
        if text.startswith(("PONG", "LOADING", "MASTERDOWN")):
            instance.last_available = self.now()
            instance.open_ping = 0.0
        instance.last_pong = self.now()

    def current_address(self) -> Address:
        """Return the primary's address; the promoted replica's as soon as that has taken over."""
        if self.is_failing_over and self.promoted is not None and self.state >= RECONFIGURE:
            return self.promoted.address
        return self.primary.address

    def _publish(self, instance: Instance) -> None:
        if instance.commands is None:
            return
        host, port = self.current_address()
        text = f"{self.address[0]},{self.address[1]},{self.id},{self.current_epoch},"
        text += f"{self.service},{host},{port},{self.config_epoch}"

        def published(reply: Any) -> None:
            if not isinstance(reply, RefusalError):
                instance.published_at = self.now()

        instance.commands.ask(published, b"PUBLISH", HELLO, text)

    def _hear(self, instance: Instance, reply: Any) -> None:
        instance.last_event = self.now()
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            self.take_hello(reply[2])

    def take_hello(self, message: bytes) -> None:
        """Take notice of what another Sentinel says of itself and of the primary."""
        host, port, run_id, epoch, service, primary_host, primary_port, config_epoch = message.decode().split(",")
        if service != self.service or run_id == self.id:
            return
        address = (host, int(port))
        known = self.sentinels.get(run_id)
        if known is None or known.address != address:
            if known is not None:
                known.close()
            known = self.sentinels[run_id] = Instance("sentinel", address, self.now(), run_id)
            self.event("+sentinel", known)
        if int(epoch) > self.current_epoch:
            self.current_epoch = int(epoch)
            self.event("+new-epoch", None, epoch)
        if int(config_epoch) > self.config_epoch:
            self.config_epoch = int(config_epoch)
            named = (primary_host, int(primary_port))
            if named != self.primary.address:
                self.event("+config-update-from", known)
                self.announce_switch(named)
                self.monitor(named)

    def announce_switch(self, to: Address) -> None:
        """Announce that another server is the primary."""
        host, port = self.primary.address
        self.event("+switch-master", None, f"{self.service} {host} {port} {to[0]} {to[1]}")

    def monitor(self, address: Address) -> None:
        """Watch another primary, of which the others are replicas."""
        now = self.now()
        replicas = [each for each in self.replicas if each != address]
        if address != self.primary.address:
            replicas.append(self.primary.address)
        for each in [self.primary, *self.replicas.values()]:
            each.close()
        for sentinel in self.sentinels.values():
            sentinel.leader = None
        self.primary = Instance("master", address, now)
        self.replicas = {each: Instance("slave", each, now) for each in replicas}
        tilt = self.tilt_since
        self._reset_failover()
        self.tilt_since, self.leader = tilt, None
        for replica in self.replicas.values():
            self.event("+slave", replica)

    # -- INFO

    def _refresh(self, instance: Instance, reply: Any) -> None:
        if isinstance(reply, RefusalError):
            return
        now, role = self.now(), instance.role
        listed = instance.read_info(reply.decode(), now)
        for address in listed:
            if address not in self.replicas:
                self.replicas[address] = Instance("slave", address, now)
                self.event("+slave", self.replicas[address])
        if instance.role != role:
            sign = "+" if instance.role == instance.kind else "-"
            self.event(f"{sign}role-change", instance, f" new reported role is {instance.role}")
        if self.tilt_since is None and instance.kind == "slave":
            if instance.role == "master":
                self._replica_is_primary(instance)
            else:
                self._replica_follows(instance)

    def _replica_is_primary(self, replica: Instance) -> None:
        if replica.is_promoted and self.is_failing_over and self.state == WAIT:
            self.config_epoch = self.failover_epoch
            self.enter(RECONFIGURE)
            self.event("+promoted-slave", replica)
            self.event("+failover-state-reconf-slaves", self.primary)
            for each in self._instances():
                each.published_at = 0.0
            return
        wait = PUBLISH * 4
        is_settled = self._not_down_for(replica, wait) and self.now() - replica.role_since > wait
        if not replica.is_promoted and self._primary_is_sane() and is_settled:
            self.send_replicaof(replica, self.primary.address)
            self.event("+convert-to-slave", replica)

    def _replica_follows(self, replica: Instance) -> None:
        now = self.now()
        wait = self.failover_timeout
        is_settled = self._not_down_for(replica, wait) and now - replica.configured_at > wait
        if replica.primary_address != self.primary.address and self._primary_is_sane() and is_settled:
            self.send_replicaof(replica, self.primary.address)
            self.event("+fix-slave-config", replica)
        promoted = self.promoted.address if self.promoted is not None else None
        if replica.reconfiguring == "sent" and replica.primary_address == promoted:
            replica.reconfiguring = "in progress"
            self.event("+slave-reconf-inprog", replica)
        if replica.reconfiguring == "in progress" and replica.link_is_up:
            replica.reconfiguring = "done"
            self.event("+slave-reconf-done", replica)

    def _primary_is_sane(self) -> bool:
        primary = self.primary
        is_well = primary.role == "master" and not primary.is_down and not self.is_odown
        return is_well and self.now() - primary.info_at < INFO * 2

    def _not_down_for(self, instance: Instance, seconds: float) -> bool:
        return not instance.down_since or self.now() - instance.down_since > seconds

    def send_replicaof(self, instance: Instance, to: Address | None) -> None:
        """Make a server a primary (None) or a replica, and cut its clients."""
        if instance.commands is not None:
            for command in (
                ("MULTI",),
                ("SLAVEOF", *(to or ("NO", "ONE"))),
                ("CONFIG", "REWRITE"),
                ("CLIENT", "KILL", "TYPE", "normal"),
                ("CLIENT", "KILL", "TYPE", "pubsub"),
                ("EXEC",),
            ):
                instance.commands.ask(ignore, *command)

    # -- down

    def _check_down(self, instance: Instance, now: float) -> None:
        elapsed = 0.0
        if instance.open_ping or not instance.is_connected:
            elapsed = now - (instance.open_ping or instance.last_available)
        line, half = instance.commands, self.down_after / 2
        is_old = line is not None and now - line.made_at > LEAST_RECONNECT
        if is_old and instance.open_ping and min(now - instance.open_ping, now - instance.last_pong) > half:
            self._drop(instance, "commands")
        events = instance.events
        if events is not None and now - events.made_at > LEAST_RECONNECT and now - instance.last_event > PUBLISH * 3:
            self._drop(instance, "events")
        demoted = instance is self.primary and instance.role == "slave"
        demoted = demoted and now - instance.role_since > self.down_after + INFO * 2
        if elapsed > self.down_after or demoted:
            if not instance.is_down:
                instance.is_down, instance.down_since = True, now
                self.event("+sdown", instance)
        elif instance.is_down:
            instance.is_down = False
            self.event("-sdown", instance)


def ignore(reply: Any) -> None:
    """Drop a reply."""
