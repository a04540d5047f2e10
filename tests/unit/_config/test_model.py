"""A configuration that exists can work; one that cannot says which field, and no password is ever shown."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from agents_redis_ha import (
    Address,
    ConfigurationError,
    DurabilityConfig,
    HAConfig,
    PoolConfig,
    RepairConfig,
    RetryConfig,
    SentinelConfig,
    TLSConfig,
)

SECRET = "s3cr3t-passw0rd"
PROVIDER = UsernamePasswordCredentialProvider("u", "p")


def full() -> HAConfig:
    """A configuration that uses every nested part and every secret."""
    return HAConfig(
        topology="sentinel",
        nodes=["a:1", "b"],
        service_name="mymaster",
        username="app",
        password=SECRET,
        tls=TLSConfig(cert_file="c.pem", key_file="k.pem", key_password=SECRET),
        sentinel=SentinelConfig(password=SECRET, tls=TLSConfig(cert_file="c.pem", key_password=SECRET)),
        address_map={"10.0.0.1:6379": "localhost:7000"},
        pool=PoolConfig(max_connections=3),
        retry=RetryConfig(deadline_seconds=4),
        durability=DurabilityConfig(replicas=1),
        repair=RepairConfig(max_changes=9),
    )


@pytest.mark.parametrize("text", ["", ":1", "h:0", "h:65536", "h:x", "h:-1", "h:1_0", "::1", "[::1", "[::1]1", "[]:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig(nodes=[text])
    assert caught.value.field == "nodes"


@pytest.mark.parametrize(
    "nodes", ["a:1,[::1]:2", ["a:1", "[::1]:2"], [("a", 1), ("::1", 2)], (Address("a", 1), "[::1]:2")]
)
def test_nodes_are_taken_as_texts_pairs_and_one_text(nodes: Any) -> None:
    assert HAConfig(topology="cluster", nodes=nodes).nodes == (Address("a", 1), Address("::1", 2))


@pytest.mark.parametrize("pairs", [{"10.0.0.1:6379": ("localhost", 7000)}, [("10.0.0.1", "localhost:7000")]])
def test_an_address_map_is_taken_as_a_mapping_and_as_pairs(pairs: Any) -> None:
    config = HAConfig(nodes=["a"], address_map=pairs)
    assert config.address_map == ((Address("10.0.0.1", 6379), Address("localhost", 7000)),)


CONFLICTS: list[tuple[str, dict[str, Any]]] = [
    ("nodes", {}),
    ("nodes", {"nodes": ["a", "b"]}),
    ("nodes", {"nodes": ["a"], "unix_socket_path": "/s"}),
    ("nodes", {"topology": "cluster"}),
    ("unix_socket_path", {"topology": "cluster", "unix_socket_path": "/s"}),
    ("tls", {"unix_socket_path": "/s", "tls": TLSConfig()}),
    ("service_name", {"topology": "sentinel", "nodes": ["a"]}),
    ("service_name", {"nodes": ["a"], "service_name": "m"}),
    ("service_name", {"topology": "cluster", "nodes": ["a"], "service_name": "m"}),
    ("sentinel", {"nodes": ["a"], "sentinel": SentinelConfig()}),
    ("sentinel", {"topology": "cluster", "nodes": ["a"], "sentinel": SentinelConfig()}),
    ("credential_provider", {"nodes": ["a"], "credential_provider": PROVIDER, "password": "p"}),
    ("credential_provider", {"nodes": ["a"], "credential_provider": PROVIDER, "username": "u"}),
    ("username", {"nodes": ["a"], "username": "u"}),
    ("db", {"topology": "cluster", "nodes": ["a"], "db": 1}),
    ("maintenance_notifications", {"nodes": ["a"], "maintenance_notifications": True}),
    ("maintenance_notifications", {"unix_socket_path": "/s", "maintenance_notifications": True, "protocol": 3}),
    (
        "maintenance_notifications",
        {"topology": "cluster", "nodes": ["a"], "maintenance_notifications": True, "protocol": 3},
    ),
    ("op_retention_seconds", {"nodes": ["a"], "op_retention_seconds": 29}),
    ("op_retention_seconds", {"nodes": ["a"], "retry": RetryConfig(deadline_seconds=60.5)}),
    ("durability.timeout_seconds", {"nodes": ["a"], "durability": {"replicas": 1, "timeout_seconds": 3}}),
    ("durability.timeout_seconds", {"nodes": ["a"], "durability": {"fsync": True, "timeout_seconds": 3}}),
    ("durability.timeout_seconds", {"nodes": ["a"], "durability": "fsync", "pool": {"response_timeout_seconds": 1}}),
    ("durability.timeout_seconds", {"nodes": ["a"], "durability": "replicas=1", "retry": {"deadline_seconds": 1}}),
    ("durability.timeout_seconds", {"nodes": ["a"], "durability": {"timeout_seconds": 0.0009}}),
    ("durability.replicas", {"nodes": ["a"], "durability": {"replicas": -1}}),
    ("durability.on_shortfall", {"nodes": ["a"], "durability": {"on_shortfall": "ignore"}}),
    ("durability.level", {"nodes": ["a"], "durability": {"level": "fsync"}}),
    ("repair.max_changes", {"nodes": ["a"], "repair": {"max_changes": -1}}),
    ("repair.max_bytes", {"nodes": ["a"], "repair": {"max_bytes": -1}}),
    ("repair.patience_seconds", {"nodes": ["a"], "repair": {"patience_seconds": -0.1}}),
    ("repair.on_loss", {"nodes": ["a"], "repair": {"on_loss": "ignore"}}),
    ("repair.on_divergence", {"nodes": ["a"], "repair": {"on_divergence": "merge"}}),
    ("key_prefix", {"nodes": ["a"], "key_prefix": "a{b"}),
    ("key_prefix", {"nodes": ["a"], "key_prefix": "a}b"}),
    ("ttl", {"nodes": ["a"], "ttl": 0}),
    ("db", {"nodes": ["a"], "db": -1}),
    ("protocol", {"nodes": ["a"], "protocol": 4}),
    ("topology", {"nodes": ["a"], "topology": "ring"}),
    ("trace_session_id", {"nodes": ["a"], "trace_session_id": "yes"}),
    ("nonsense", {"nodes": ["a"], "nonsense": 1}),
]


@pytest.mark.parametrize(("field", "values"), CONFLICTS, ids=[f"{i}-{f}" for i, (f, _) in enumerate(CONFLICTS)])
def test_what_cannot_work_names_its_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig(**values)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.reason}"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("pool.max_connections", {"pool": {"max_connections": 0}}),
        ("tls.key_file", {"tls": {"key_file": "k"}}),
        ("sentinel.tls.key_file", {"sentinel": {"tls": {"key_file": "k"}}}),
    ],
)
def test_a_field_of_a_nested_part_is_named_with_its_dots(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig(nodes=["a"], **values)
    assert caught.value.field == field


@pytest.mark.parametrize("values", [{"nodes": None}, {"nodes": 5}, {"nodes": ["a"], "address_map": 5}])
def test_a_value_of_the_wrong_shape_is_a_configuration_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        HAConfig(**values)


def test_a_retention_that_redis_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        HAConfig(nodes=["a"], op_retention_seconds=10**16)


def test_a_ttl_that_redis_cannot_hold_is_refused() -> None:
    assert HAConfig(nodes=["a"], ttl=10**12).ttl == 10**12
    with pytest.raises(ConfigurationError):
        HAConfig(nodes=["a"], ttl=10**12 + 1)


@pytest.mark.parametrize(
    ("text", "durability"),
    [
        ("primary", DurabilityConfig()),
        ("replicas=0", DurabilityConfig()),
        ("replicas=1", DurabilityConfig(replicas=1)),
        ("replicas=12", DurabilityConfig(replicas=12)),
        ("fsync", DurabilityConfig(fsync=True)),
    ],
)
def test_a_level_of_durability_may_be_given_as_a_text(text: str, durability: DurabilityConfig) -> None:
    assert HAConfig(nodes=["a"], durability=text).durability == durability
    assert HAConfig.from_url("redis://a?replicas=3&fsync=1", durability=text).durability == durability
    assert HAConfig(nodes=["a"]).replace(durability=text).durability == durability


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Primary",
        "replicas",
        "replicas=",
        "replicas=two",
        "replicas=-1",
        "replicas=1.5",
        "replicas= 1",
        "replicas=\u00b2",
        "replica=1",
        "fsync=1",
        "primary=",
        "quorum",
        "replicas=1,fsync",
    ],
)
def test_another_text_is_no_level_of_durability(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig(nodes=["a"], durability=text)
    assert caught.value.field == "durability"
    assert "'primary', 'replicas=N', 'fsync'" in caught.value.reason


def test_a_wait_that_is_not_asked_for_may_be_as_long_as_it_likes() -> None:
    config = HAConfig(nodes=["a"], durability={"timeout_seconds": 60})
    assert config.durability.timeout_seconds == 60
    quick = HAConfig(nodes=["a"], retry=RetryConfig(deadline_seconds=0.5), pool={"response_timeout_seconds": 0.1})
    assert quick.durability == DurabilityConfig()
    with pytest.raises(ConfigurationError) as caught:
        quick.replace(durability="fsync")
    assert caught.value.field == "durability.timeout_seconds"


def test_a_wait_for_disks_is_longer_than_a_round_of_flushes_unless_told_otherwise() -> None:
    assert DurabilityConfig(fsync=True).timeout_seconds == 2.5
    assert DurabilityConfig().replace(fsync="yes").timeout_seconds == 2.5
    assert DurabilityConfig(fsync=True, timeout_seconds=0.1).timeout_seconds == 0.1
    assert DurabilityConfig(replicas=1).timeout_seconds == 1.0
    assert HAConfig.from_url("redis://a?fsync=yes&replicas=1").durability.timeout_seconds == 2.5


def test_a_wait_below_both_other_limits_is_allowed() -> None:
    parts: dict[str, Any] = {"retry": {"deadline_seconds": 2}, "pool": {"response_timeout_seconds": 1.5}}
    assert HAConfig(nodes=["a"], durability={"replicas": 1, "timeout_seconds": 1.49}, **parts).durability.replicas == 1


CLIENTS_OWN: dict[str, Any] = {
    "retry": {"deadline_seconds": 5},
    "durability": "replicas=1",
    "repair": {"max_changes": 1},
    "key_prefix": "p",
    "ttl": 5,
    "op_retention_seconds": 60,
    "turn_retention_seconds": 60,
    "trace_session_id": "off",
}
SERVERS: dict[str, Any] = {
    "topology": "cluster",
    "nodes": ["b"],
    "unix_socket_path": "/s",
    "service_name": "m",
    "db": 1,
    "address_map": {"a:1": "b:1"},
}
CONNECTIONS: dict[str, Any] = {
    "username": "u",
    "password": "p",
    "credential_provider": UsernamePasswordCredentialProvider("u", "p"),
    "tls": {},
    "sentinel": {"password": "p"},
    "pool": {"max_connections": 2},
    "client_name": "n",
    "protocol": 3,
    "maintenance_notifications": True,
}
# What a field needs before it is changed, and what has to change with it.
BEFORE: dict[str, Any] = {
    "service_name": {"topology": "sentinel", "service_name": "other"},
    "sentinel": {"topology": "sentinel", "service_name": "m"},
    "maintenance_notifications": {"protocol": 3},
}
WITH: dict[str, Any] = {"unix_socket_path": {"nodes": []}, "username": {"password": "p"}}


def test_every_field_is_a_clients_own_or_says_which_servers_or_how_to_connect() -> None:
    assert sorted([*CLIENTS_OWN, *SERVERS, *CONNECTIONS]) == sorted(HAConfig.model_fields)


@pytest.mark.parametrize("field", HAConfig.model_fields)
def test_sessions_share_connections_unless_they_connect_to_another_place_or_in_another_way(field: str) -> None:
    config = HAConfig(nodes=["a"], **BEFORE.get(field, {}))
    other = config.replace(**{field: {**CLIENTS_OWN, **SERVERS, **CONNECTIONS}[field]}, **WITH.get(field, {}))
    assert (other.connection_part() == config.connection_part()) is (field in CLIENTS_OWN)
    assert (other.servers() == config.servers()) is (field not in SERVERS)


def test_servers_are_the_same_in_whatever_order_they_are_named() -> None:
    first, second = (HAConfig(topology="cluster", nodes=nodes) for nodes in (["a", "b"], ["b", "a"]))
    assert first.servers() == second.servers()


def test_a_retention_of_twice_the_deadline_is_enough() -> None:
    config = HAConfig(nodes=["a"], op_retention_seconds=10, retry=RetryConfig(deadline_seconds=5))
    assert config.op_retention_seconds == 10


def test_a_password_never_reaches_a_repr_a_text_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    config = full()
    caplog.set_level(logging.DEBUG)
    logging.getLogger("app").info("%s %r %s", config, config, config.model_dump())
    for shown in (
        repr(config),
        str(config),
        f"{config.tls} {config.sentinel!r}",
        caplog.text,
        config.model_dump_json(),
    ):
        assert SECRET not in shown
    assert config.password is not None
    assert config.password.get_secret_value() == SECRET


@pytest.mark.parametrize(
    "broken",
    [
        {"db": "x"},
        {"nodes": ["a:x"]},
        {"nonsense": SECRET},
        {"password": 5},
        {"username": None, "credential_provider": PROVIDER},
        {"tls": {"key_password": SECRET}},
        {"tls": SECRET},
        {"sentinel": {"password": [SECRET]}},
        {"pool": SECRET},
        {"ttl": SECRET},
        {"trace_session_id": SECRET},
        {"topology": "cluster", "db": 3},
    ],
)
def test_a_password_never_reaches_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        full().replace(**broken)
    error: BaseException | None = caught.value
    while error is not None:  # what is not shown in a traceback is there all the same, for a tool that walks it
        assert SECRET not in f"{error} {error!r} {error.__dict__}"
        error = error.__cause__ or error.__context__


def test_configurations_are_equal_and_hash_alike_by_their_values() -> None:
    assert full() == full()
    assert hash(full()) == hash(full())
    assert len({full(), full(), full().replace(ttl=5)}) == 2
    assert HAConfig(nodes=["a"]) == HAConfig(nodes="a:6379", db=0)
    for change in ({"password": "other"}, {"db": 1}, {"retry": RetryConfig()}, {"address_map": ()}):
        assert full().replace(**change) != full()


def test_a_configuration_survives_pickling_with_its_secrets() -> None:
    copy = pickle.loads(pickle.dumps(full()))
    assert copy == full()
    assert hash(copy) == hash(full())
    assert copy.password.get_secret_value() == SECRET
    assert copy.replace(ttl=1).ttl == 1


def test_a_configuration_cannot_be_changed() -> None:
    config = full()
    for part, name in ((config, "db"), (config.tls, "verify"), (config.pool, "max_connections"), (config, "new")):
        with pytest.raises(ValueError, match=r"frozen|no field"):
            setattr(part, name, 1)


def test_fields_are_given_by_keyword_only() -> None:
    parts: tuple[Any, ...] = (TLSConfig, PoolConfig, RetryConfig, DurabilityConfig, RepairConfig, SentinelConfig)
    for model in (HAConfig, *parts):
        with pytest.raises(TypeError):
            model("standalone")


def test_replace_changes_the_given_fields_and_validates_the_whole() -> None:
    config = full()
    changed = config.replace(ttl=60, nodes=["c:3"])
    assert (changed.ttl, changed.nodes) == (60, (Address("c", 3),))
    assert changed.replace(ttl=None, nodes=config.nodes) == config
    with pytest.raises(ConfigurationError) as caught:
        config.replace(topology="cluster")
    assert caught.value.field == "service_name"


def test_elasticache_is_a_cluster_with_tls_unless_told_otherwise() -> None:
    config = HAConfig.elasticache("cfg.example", username="u", password="p", ttl=5)
    assert (config.topology, config.nodes, config.tls) == ("cluster", (Address("cfg.example", 6379),), TLSConfig())
    assert (config.username, config.ttl, config.maintenance_notifications, config.protocol) == ("u", 5, False, 2)
    assert HAConfig.elasticache("p.example:7", cluster_mode=False).topology == "standalone"
    assert HAConfig.elasticache("p.example", tls=None).tls is None


def test_memorydb_is_a_cluster_with_tls_and_takes_iam() -> None:
    provider: CredentialProvider = PROVIDER
    config = HAConfig.memorydb("mdb.example:6380", credential_provider=provider)
    assert (config.topology, config.nodes, config.tls) == ("cluster", (Address("mdb.example", 6380),), TLSConfig())
    assert config.credential_provider is provider
    assert HAConfig.memorydb("mdb.example", tls=None).tls is None


def test_redis_cloud_follows_maintenance_on_its_one_endpoint_only() -> None:
    config = HAConfig.redis_cloud("rc.example:12000", password=SECRET)
    assert (config.topology, config.tls, config.protocol) == ("standalone", TLSConfig(), 3)
    assert config.maintenance_notifications
    clustered = HAConfig.redis_cloud("rc.example:12000", password=SECRET, oss_cluster=True, tls=False)
    assert (clustered.topology, clustered.tls, clustered.maintenance_notifications) == ("cluster", None, False)
    own = TLSConfig(ca_file="rc.pem")
    assert HAConfig.redis_cloud("rc.example:12000", password=SECRET, tls=own).tls == own
    assert SECRET not in repr(config)
