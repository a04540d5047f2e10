"""The keys of one server: strings are bytes, lists are lists, hashes are dicts; when they expire.

An expired key is not seen any more. A primary deletes it when it is met, and replicates the deletion; a replica waits
for that (db.c, expireIfNeeded).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from .registry import WRONG_TYPE, RefusalError

__all__ = ["Data", "Keyspace", "Value", "size_of", "type_name"]

Value: TypeAlias = "bytes | list[bytes] | dict[bytes, bytes]"
Data: TypeAlias = "tuple[dict[bytes, Value], dict[bytes, int]]"

_NAMES = {bytes: "string", list: "list", dict: "hash"}


class Keyspace:
    """What a server stores.

    Attributes:
        values: By key, expired ones that were not deleted yet among them.
        expires: When a key expires, in milliseconds since 1970.
        on_expired: Called with a key that is met after it expired; returns whether to delete it.
        ignores_expiry: Whether expired keys are there all the same: while the primary's stream is applied, and to a
            script on a replica before 7.0.
        on_access: Called with a key that is read or written, for eviction by use; None where that does not matter.
        now_ms: The server's clock; it stands still while a script runs.
    """

    __slots__ = ("expires", "ignores_expiry", "now_ms", "on_access", "on_expired", "values")

    def __init__(self, now_ms: Callable[[], int], on_expired: Callable[[bytes], bool]) -> None:
        self.values: dict[bytes, Value] = {}
        self.expires: dict[bytes, int] = {}
        self.now_ms = now_ms
        self.on_expired = on_expired
        self.ignores_expiry = False
        self.on_access: Callable[[bytes], None] | None = None

    def get(self, key: bytes) -> Value | None:
        """Return a key's value, None if there is none (any more)."""
        value = self.values.get(key)
        if value is None:
            return None
        at = self.expires.get(key)
        if at is not None and at < self.now_ms() and not self.ignores_expiry:  # at the very millisecond it is there
            if self.on_expired(key):
                self.delete(key)
            return None
        if self.on_access is not None:
            self.on_access(key)
        return value

    def string(self, key: bytes) -> bytes | None:
        """Return a string."""
        value = self.get(key)
        if value is not None and type(value) is not bytes:
            raise RefusalError(WRONG_TYPE)
        return value

    def list(self, key: bytes) -> list[bytes] | None:
        """Return a list, to be changed in place; the caller deletes it if it becomes empty."""
        value = self.get(key)
        if value is not None and type(value) is not list:
            raise RefusalError(WRONG_TYPE)
        return value

    def hash(self, key: bytes) -> dict[bytes, bytes] | None:
        """Return a hash, to be changed in place; likewise."""
        value = self.get(key)
        if value is not None and type(value) is not dict:
            raise RefusalError(WRONG_TYPE)
        return value

    def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        self.expires.pop(key, None)
        return self.values.pop(key, None) is not None

    def store(self, key: bytes, value: Value, *, keep_ttl: bool = False) -> None:
        """Set a key."""
        self.values[key] = value
        if not keep_ttl:
            self.expires.pop(key, None)

    def alive(self) -> Iterator[bytes]:
        """Yield the keys that are not expired, in the order of their creation."""
        now = self.now_ms()
        return (key for key in self.values if self.expires.get(key, now) >= now)

    def clear(self) -> None:
        """Remove all keys."""
        self.values.clear()
        self.expires.clear()

    def copy_data(self) -> Data:
        """Return what a snapshot holds."""
        return {key: _copied(value) for key, value in self.values.items()}, dict(self.expires)

    def load_data(self, data: Data) -> None:
        """Take the data of a snapshot, which stays as it is."""
        values, expires = data
        self.values = {key: _copied(value) for key, value in values.items()}
        self.expires = dict(expires)


def _copied(value: Value) -> Value:
    return value if isinstance(value, bytes) else value.copy()


def type_name(value: Value | None) -> str:
    """Return what TYPE says."""
    return "none" if value is None else _NAMES[type(value)]


def size_of(key: bytes, value: Value) -> int:
    """Return about how many bytes of memory a key takes: eviction needs no more than an order."""
    if isinstance(value, bytes):
        content = len(value) + 16
    elif isinstance(value, list):
        content = 40 + sum(map(len, value)) + 4 * len(value)
    else:
        content = 40 + sum([len(name) + len(text) + 6 for name, text in value.items()])
    return len(key) + 56 + content
