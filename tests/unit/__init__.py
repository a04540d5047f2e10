"""No servers here. A package, so that its files may be called as those of the contract tests are."""
