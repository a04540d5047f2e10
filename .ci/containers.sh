step "in containers"
if wait "$ensuring"; then
  [ ! -f "$work/docker.env" ] || . "$work/docker.env"
  docker version --format 'engine {{.Server.Version}}'
  docker compose version
  main_environment
  # Tests of one file share a stack. They wait for containers most of the time.
  AGENTS_REDIS_HA_REQUIRE_COMPOSE=1 tests "$main/python" -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder \
    --durations=15 tests/compose
elif [ -x ../shared/docker/ensure.sh ]; then
  cat "$work/docker.log"
  echo "../shared/docker/ensure.sh failed"
  exit 1
else
  echo "neither an engine nor ../shared/docker/ensure.sh: tests/compose is not run"
fi
