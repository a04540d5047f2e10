"""How a session lies in Redis: the names of its keys, and an item as bytes. Pure."""

from .codec import decode_item, decode_joined, encode_items, encode_value
from .keys import SessionKeys, acl_rule, check_prefix, session_keys

__all__ = [
    "SessionKeys",
    "acl_rule",
    "check_prefix",
    "decode_item",
    "decode_joined",
    "encode_items",
    "encode_value",
    "session_keys",
]
