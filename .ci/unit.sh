main_environment

for version in "$OLDEST_PYTHON" "$NEWEST_PYTHON"; do
  step "unit tests on Python $version"
  if python=$(python_of "$version"); then
    environment "$work/py$version" "$python" test
    tests "$work/py$version/bin/python" -m pytest -q tests/unit
    step "the same verdicts on simulated runs on Python $version"
    [ -f "$work/verdicts" ] || simulate_verdicts "$main/python" "$work/verdicts"
    simulate_verdicts "$work/py$version/bin/python" "$work/verdicts-$version"
    "$main/python" -m tests.simulation.totals --compare "$work/verdicts" "$work/verdicts-$version"
  else
    echo "not run; the stage proof insists on it"
  fi
done
