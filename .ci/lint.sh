step "lint and types"
main_environment
"$main/ruff" check
"$main/ruff" format --check
"$main/mypy" --python-executable "$main/python"
