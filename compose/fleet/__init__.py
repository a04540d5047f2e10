"""A fleet of chat services and background workers that share conversations through `agents_redis_ha`."""
