for version in "$OLDEST_PYTHON" "$NEWEST_PYTHON"; do
  step "unit tests on Python $version"
  if python=$(python_of "$version"); then
    environment "$work/py$version" "$python" test
    "$work/py$version/bin/python" -m pytest -q -p no:cacheprovider tests/unit
  else
    echo "not run; the stage proof insists on it"
  fi
done
