"""The grammar of URLs and of the environment: every option has its field, a mistake names its part, no URL leaks."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents_redis_ha import Address, ConfigurationError, HAConfig, SentinelConfig, TLSConfig
from agents_redis_ha._config.urls import OPTIONS, parse_url

SECRET = "s3cr3t-passw0rd"


def read(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config.get_secret_value() if hasattr(config, "get_secret_value") else config


@pytest.mark.parametrize("name", ["redis", "valkey", "REDIS", "Valkey"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("suffix", "topology", "rest"),
    [("", "standalone", ""), ("+sentinel", "sentinel", "/m"), ("+cluster", "cluster", "")],
)
def test_a_scheme_decides_topology_and_tls(name: str, tls: bool, suffix: str, topology: str, rest: str) -> None:
    config = HAConfig.from_url(f"{name}{'s' if tls else ''}{suffix}://h{rest}")
    assert config.topology == topology
    assert (config.tls == TLSConfig()) is tls
    assert config.nodes == (Address("h", 26379 if topology == "sentinel" else 6379),)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis:/h",
        "://h",
        "http://h",
        "redis+ring://h",
        "redis+://h",
        "rediss+unix:///s",
        "redisx://h",
        "redis+redis://h",
        "rediss+valkey://h",
        "valkey+sentinel+cluster://h",
        "redis://h/0/1",
        "redis+cluster://h/m/0",
        "redis+sentinel://h/m/0/x",
        "redis://h?ttl",
        "redis://h?ttl=5&&db=1",
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig.from_url(url)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    ("hosts", "addresses"),
    [
        ("", (("localhost", 6379),)),
        ("h:1", (("h", 1),)),
        ("h:1,i,j:3", (("h", 1), ("i", 6379), ("j", 3))),
        ("[::1]:7,[fe80::2]", (("::1", 7), ("fe80::2", 6379))),
        ("%5B::1%5D:7", (("::1", 7),)),
    ],
)
def test_several_hosts_default_ports_and_ipv6_are_read(hosts: str, addresses: Any) -> None:
    assert HAConfig.from_url(f"redis+cluster://{hosts}").nodes == addresses


@pytest.mark.parametrize("hosts", ["h:x", "h:0", "h:70000", "::1", "[::1", "h,", ",h", ":1", "h:1:2"])
def test_a_broken_host_is_refused_as_nodes(hosts: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(f"redis+cluster://{hosts}")
    assert caught.value.field == "nodes"


def test_service_and_database_are_the_path() -> None:
    config = HAConfig.from_url("redis+sentinel://a,b/my%2Fservice/3")
    assert (config.service_name, config.db) == ("my/service", 3)
    assert HAConfig.from_url("redis://h/7/").db == 7
    with pytest.raises(ConfigurationError) as caught:
        HAConfig.from_url("redis+sentinel://a,b")
    assert caught.value.field == "service_name"
    with pytest.raises(ConfigurationError) as caught:
        HAConfig.from_url("redis://h/mymaster")
    assert caught.value.field == "db"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_user_and_password_come_through_percent_encoding(username: str, password: str) -> None:
    url = f"redis://{quote(username, safe='')}:{quote(password, safe='')}@h:1/2"
    fields = parse_url(url)
    assert fields.get("username", "") == username
    assert fields["password"] == password
    assert fields["nodes"] == (("h", 1),)


@pytest.mark.parametrize(
    ("credentials", "username", "password"),
    [("", None, None), (":", None, None), (":p", None, "p"), ("u:p", "u", "p"), ("u:p:q@r/s", "u", "p:q@r/s")],
)
def test_credentials_stand_before_the_last_at_sign(credentials: str, username: Any, password: Any) -> None:
    config = HAConfig.from_url(f"redis://{credentials}@h")
    assert config.username == username
    assert (config.password.get_secret_value() if config.password else None) == password


def test_a_unix_socket_takes_credentials_database_and_percent_encoding() -> None:
    config = HAConfig.from_url("unix://u:p@/run/my%40redis.sock?db=2&ttl=9")
    assert (config.topology, config.unix_socket_path, config.db, config.ttl) == (
        "standalone",
        "/run/my@redis.sock",
        2,
        9,
    )
    assert (config.username, config.nodes) == ("u", ())


# Each option with a URL query that is valid with it, its field, and what that then is.
SAMPLES: dict[str, tuple[str, str, Any]] = {
    "ca_file": ("ca_file=/ca.pem", "tls.ca_file", "/ca.pem"),
    "cert_file": ("cert_file=c", "tls.cert_file", "c"),
    "check_hostname": ("check_hostname=no", "tls.check_hostname", False),
    "client_name": ("client_name=worker", "client_name", "worker"),
    "connect_timeout": ("connect_timeout=0.7", "pool.connect_timeout_seconds", 0.7),
    "confirm_timeout": ("confirm_timeout=0.25", "durability.timeout_seconds", 0.25),
    "db": ("db=4", "db", 4),
    "deadline": ("deadline=33.5", "retry.deadline_seconds", 33.5),
    "fsync": ("fsync=true", "durability.fsync", True),
    "key_file": ("key_file=k&cert_file=c", "tls.key_file", "k"),
    "key_password": ("key_password=s3&cert_file=c", "tls.key_password", "s3"),
    "key_prefix": ("key_prefix=my:app", "key_prefix", "my:app"),
    "max_connections": ("max_connections=7", "pool.max_connections", 7),
    "on_loss": ("on_loss=warn", "repair.on_loss", "warn"),
    "on_shortfall": ("on_shortfall=degrade", "durability.on_shortfall", "degrade"),
    "op_retention": ("op_retention=77", "op_retention_seconds", 77),
    "turn_retention": ("turn_retention=77", "turn_retention_seconds", 77),
    "password": ("password=a%26b", "password", "a&b"),
    "protocol": ("protocol=3", "protocol", 3),
    "replicas": ("replicas=2", "durability.replicas", 2),
    "response_timeout": ("response_timeout=4.5", "pool.response_timeout_seconds", 4.5),
    "sentinel_ca_file": ("sentinel_ca_file=s.pem", "sentinel.tls.ca_file", "s.pem"),
    "sentinel_cert_file": ("sentinel_cert_file=s", "sentinel.tls.cert_file", "s"),
    "sentinel_check_hostname": ("sentinel_check_hostname=false", "sentinel.tls.check_hostname", False),
    "sentinel_key_file": ("sentinel_key_file=sk&sentinel_cert_file=s", "sentinel.tls.key_file", "sk"),
    "sentinel_password": ("sentinel_password=sp", "sentinel.password", "sp"),
    "sentinel_tls": ("sentinel_tls=true", "sentinel.tls", TLSConfig()),
    "sentinel_username": ("sentinel_username=su&sentinel_password=sp", "sentinel.username", "su"),
    "tls_min_version": ("tls_min_version=1.3", "tls.min_version", "1.3"),
    "trace_session_id": ("trace_session_id=off", "trace_session_id", "off"),
    "ttl": ("ttl=3600", "ttl", 3600),
    "username": ("username=u&password=p", "username", "u"),
    "verify": ("verify=0&check_hostname=0", "tls.verify", False),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_lands_in_its_field(option: str) -> None:
    query, path, expected = SAMPLES[option]
    before = HAConfig.from_url("rediss+sentinel://h/m")
    config = HAConfig.from_url(f"rediss+sentinel://h/m?{query}")
    assert read(config, path) == expected
    if option != "sentinel_tls":
        assert read(before, path) != expected
        changed = {SAMPLES[part.partition("=")[0]][1].split(".")[0] for part in query.split("&")}
        inherited = {"sentinel"} if "tls" in changed else set()
        for name in set(HAConfig.model_fields) - changed - inherited:
            assert getattr(config, name) == getattr(before, name), f"{option} also changed {name}"


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_a_variable_of_the_environment(option: str) -> None:
    query, path, expected = SAMPLES[option]
    pairs = [part.partition("=") for part in query.replace("%26", "&").split("&", 0 if option == "password" else -1)]
    variables = {f"AGENTS_REDIS_HA_{name.upper()}": value for name, _, value in pairs}
    config = HAConfig.from_env({"AGENTS_REDIS_HA_URL": "rediss+sentinel://h/m", "PATH": "/bin", **variables})
    assert read(config, path) == expected


@pytest.mark.parametrize("option", ["tls", "Ttl", "redis_ha", "host", "sentinel_verify", "retry.deadline_seconds", ""])
def test_an_unknown_option_is_an_error_that_names_it(option: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(f"redis://h?{option}=1")
    assert caught.value.field == option
    with pytest.raises(ConfigurationError):
        HAConfig.from_env({"AGENTS_REDIS_HA_URL": "redis://h", f"AGENTS_REDIS_HA_{option}X": "1"})


@pytest.mark.parametrize("option", [name for name, path in OPTIONS.items() if path.startswith("tls.")])
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel", "valkey"])
def test_a_tls_option_on_a_scheme_without_tls_is_an_error(option: str, scheme: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(f"{scheme}://h?{SAMPLES[option][0]}")
    assert "rediss" in caught.value.reason
    with pytest.raises(ConfigurationError):
        parse_url(f"unix:///s?{SAMPLES[option][0]}")


def test_sentinels_inherit_the_data_servers_tls_and_may_differ_in_part() -> None:
    config = HAConfig.from_url("rediss+sentinel://h/m?ca_file=ca&check_hostname=no&sentinel_check_hostname=yes")
    assert config.tls == TLSConfig(ca_file="ca", check_hostname=False)
    assert config.sentinel is not None
    assert config.sentinel.tls == TLSConfig(ca_file="ca", check_hostname=True)


@pytest.mark.parametrize("no", ["false", "0", "no", "off", "FALSE"])
def test_sentinel_tls_can_be_taken_off_alone(no: str) -> None:
    config = HAConfig.from_url(f"rediss+sentinel://h/m?ca_file=ca&sentinel_tls={no}&sentinel_password=x")
    assert config.tls == TLSConfig(ca_file="ca")
    assert config.sentinel is not None
    assert config.sentinel.tls is None


def test_plain_data_servers_do_not_give_their_sentinels_tls() -> None:
    config = HAConfig.from_url("redis+sentinel://h/m?sentinel_password=x")
    assert config.sentinel is not None
    assert config.sentinel.tls is None


@pytest.mark.parametrize("value", ["", "flase", "disabled"])
def test_sentinel_tls_is_never_switched_on_by_a_slip(value: str) -> None:
    try:
        config = HAConfig.from_url(f"redis+sentinel://h/m?sentinel_tls={value}")
    except ConfigurationError:
        return
    assert config.sentinel is None or config.sentinel.tls is None


def test_the_order_of_options_means_nothing() -> None:
    off, ca = "sentinel_tls=false", "sentinel_ca_file=x"
    assert parse_url(f"rediss+sentinel://h/m?{off}&{ca}") == parse_url(f"rediss+sentinel://h/m?{ca}&{off}")


def test_overriding_the_sentinels_password_does_not_send_it_in_plain_text() -> None:
    config = HAConfig.from_url("rediss+sentinel://h/m", sentinel=SentinelConfig(password="x"))
    assert config.sentinel is not None
    assert config.sentinel.tls is not None


def test_overrides_win_over_the_url_and_over_the_environment() -> None:
    assert HAConfig.from_url("redis://h/1?ttl=5", ttl=6, db=2).model_dump(include={"ttl", "db"}) == {"ttl": 6, "db": 2}
    environ = {"AGENTS_REDIS_HA_URL": "redis://h/1?ttl=5", "AGENTS_REDIS_HA_TTL": "6", "AGENTS_REDIS_HA_DB": "3"}
    assert HAConfig.from_env(environ).ttl == 6
    assert HAConfig.from_env(environ, ttl=7).ttl == 7
    assert HAConfig.from_env(environ).db == 3


@pytest.mark.parametrize("environ", [{}, {"AGENTS_REDIS_HA_URL": ""}, {"AGENTS_REDIS_HA_TTL": "5"}])
def test_a_missing_url_is_named_as_the_variable(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HAConfig.from_env(environ)
    assert caught.value.field == "AGENTS_REDIS_HA_URL"


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTS_REDIS_HA_REQUIRE_ALL", "AGENTS_REDIS_HA_REQUIRE_COMPOSE"):
        monkeypatch.setenv(name, "1")  # the tests'
    monkeypatch.setenv("AGENTS_REDIS_HA_URL", "redis+cluster://h:7")
    monkeypatch.setenv("AGENTS_REDIS_HA_PASSWORD", SECRET)
    monkeypatch.setenv("AGENTS_REDIS_HA_SERVER", "/usr/bin/redis-server")  # the lab's
    config = HAConfig.from_env()
    assert (config.nodes, read(config, "password")) == ((Address("h", 7),), SECRET)


@given(st.text())
@example("redis://h:\u00b2")
@example("redis://[")
@example("redis+sentinel://%zz")
@example(f"redis://h:{'9' * 5000}")
def test_any_text_is_a_url_or_a_configuration_error(text: str) -> None:
    for url in (text, f"redis://{text}", f"rediss+sentinel://{text}", f"unix://{text}", f"redis://h?{text}"):
        try:
            HAConfig.from_url(url)
        except ConfigurationError:
            continue


@pytest.mark.parametrize("value", [None, 5, b"redis://h", ["redis://h"]])
def test_what_is_no_text_is_a_configuration_error(value: Any) -> None:
    with pytest.raises(ConfigurationError):
        HAConfig.from_url(value)


BROKEN = [
    "redis://u:{}@h:x",
    "redis://u:{}@h:0/0",
    "redis://u:{}@:x",
    "redis://u:{}@h/x",
    "redis://u:{}@h/1/2",
    "redis+ring://u:{}@h",
    "redis+cluster://:{}@h/3",
    "redis+sentinel://:{}@h",
    "redis://u:{}@h?ttl=x",
    "redis://u:{}@h?ttl",
    "redis://u:{}@h?nosuch=1",
    "redis://u:{}@h?ca_file=x",
    "redis://h?username=u&password={}&ttl=-1",
    "rediss://:{}@h?key_password={}",
    "unix://u:{}@",
    "u:{}@h",
    "{}",
    "redis://{}",
    "redis://{}:x",
    "redis://[{}",
]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(BROKEN))
def test_the_error_for_a_broken_url_never_holds_its_password(text: str, template: str) -> None:
    password = f"Zq9{text}"
    encoded = quote(password, safe="")
    try:
        HAConfig.from_url(template.replace("{}", encoded))
    except ConfigurationError as error:
        for shown in (str(error), repr(error), repr(error.__dict__)):
            assert password not in shown
            assert encoded not in shown
            assert "://" not in shown.replace("like redis://host:6379/0", "")
    else:
        assert template == "redis://{}"  # then it is the host


@pytest.mark.parametrize("password", ["pa:ss/w0rd", "a@b", "a@b:c", "@", "/", "a,b", "a=b&c=d", "100%", "%zz", "a b"])
def test_a_password_may_stand_there_unencoded_where_it_holds_neither_question_mark_nor_hash(password: str) -> None:
    assert parse_url(f"redis://u:{password}@h:1/2")["nodes"] == (("h", 1),)


def test_a_hash_in_a_password_is_not_taken_for_the_end_of_the_url() -> None:
    with contextlib.suppress(ConfigurationError):
        assert parse_url("redis://u:6380#x@prod:6379/0")["nodes"] == (("prod", 6379),)


def test_a_question_mark_in_a_password_does_not_show_the_rest_of_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url("redis://u:12?hunter2=@host/0")
    assert "hunter2" not in str(caught.value)


def test_a_port_in_other_digits_is_refused_in_our_words() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url("redis://h:12\u00b2")
    assert "12" not in caught.value.reason
