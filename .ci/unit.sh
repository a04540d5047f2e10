main_environment

for version in "$OLDEST_PYTHON" "$NEWEST_PYTHON"; do
  if ! python=$(python_of "$version"); then
    echo "not run; the stage proof insists on it"
    continue
  fi
  environment "$work/py$version" "$python" test
  tester=$work/py$version/bin/python
  if [ "$version" = "$OLDEST_PYTHON" ]; then
    floors_environment
    tester=$work/floors/bin/python
  fi
  step "unit tests on Python $version, the oldest one with the oldest dependencies"
  tests "$tester" -m pytest -q tests/unit
  step "the same verdicts on simulated runs on Python $version"
  [ -f "$work/verdicts" ] || simulate_verdicts "$main/python" "$work/verdicts"
  simulate_verdicts "$work/py$version/bin/python" "$work/verdicts-$version"
  "$main/python" -m tests.simulation.totals --compare "$work/verdicts" "$work/verdicts-$version"
done
