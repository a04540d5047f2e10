"""``python -m agents_redis_ha`` is the command ``agents-redis-ha``."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
