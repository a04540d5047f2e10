"""The commands that the library, redis-py, the Sentinels and the tests send, by what they are about."""

from . import clients, cluster, hashes, info, keys, lists, strings

__all__ = ["clients", "cluster", "hashes", "info", "keys", "lists", "strings"]
