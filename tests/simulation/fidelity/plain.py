"""Items of all kinds, and plain commands that may or may not make sense."""

from __future__ import annotations

import random
from collections.abc import Callable

from agents_redis_ha._commands.command import Argument

__all__ = ["plain_command", "random_item"]


def random_item(rng: random.Random) -> bytes:
    kind = rng.randrange(40)
    if kind < 28:
        return b'{"role":"user","content":"%d"}' % rng.randrange(1000)
    odd = (
        '{"text":"ä€😀"}'.encode(),
        '{"text":"é\u0800\ud7ff\ue000\U000fffff"}'.encode("utf-8", "surrogatepass"),
        b'{"text":"\xff"}',
        b'{"text":"\xed\xa0\x80"}',
        b'{"text":"\xf4\x90\x80\x80"}',
        b'{"text":"\\ud83d\\ude00"}',
        b'{"text":"\\ud83d"}',
        b'{"n":0x10,"m":01}',
        b'{"n":+5}',
        b'{"n":inf,"m":-nan}',
        b'{"n":1.}',
        b'{"n":.5}',
        b'{"a":[1,2,{"b":null}],"c":true}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1} x',
        b"[1]",
        b"",
        b"{",
        b'{"a":"\x01"}',
        b'{"a":"' + b"x" * rng.choice((4_000, 70_000)) + b'"}',
        b'{"a":' + b"[" * rng.choice((900, 1_010)) + b"]" * rng.choice((900, 1_010)) + b"}",
        b'{"a":' + b"[" * 998 + b"]" * 998 + b"}",
    )
    return rng.choice(odd)


_SOURCES = (
    "return {1,2,{3,'four',false,nil,5}}",
    "return {1,nil,2}",
    "return 3.99",
    "return -3.99",
    "return true",
    "return false",
    "return nil",
    "return {ok='fine'}",
    "return {err='MY error'}",
    "return redis.error_reply('MY error')",
    "return redis.error_reply('word')",
    "return redis.status_reply('fine')",
    "return {redis.status_reply('a'), redis.error_reply('B c')}",
    "return tostring(1e15) .. tostring(0.1)",
    "return redis.call('SET', KEYS[1], 1e15)",
    "redis.call('SET', KEYS[1], 0.1) return redis.call('GET', KEYS[1])",
    "redis.call('SET', KEYS[1], 12345678901234567890) return redis.call('GET', KEYS[1])",
    "return redis.call('NOSUCH')",
    "return redis.call('GET')",
    "return redis.call()",
    "return redis.call('SET', KEYS[1], {})",
    "local r = redis.pcall('NOSUCH') return r.err",
    "local r = redis.pcall('LPUSH', KEYS[1]) return r.err",
    "redis.call('SET', KEYS[1], 'x')\nreturn redis.call('LPUSH', KEYS[1], 'y')",
    "redis.call('SET', KEYS[1], 'x')\nlocal r = redis.pcall('LPUSH', KEYS[1], 'y')\nreturn r.err",
    "redis.call('SET', KEYS[1], 'x')\nlocal ok, r = pcall(redis.call, 'LPUSH', KEYS[1], 'y')\nreturn type(r)",
    "return nothing.at.all",
    "local x = nil\nreturn x.y",
    "error('my own')",
    "error({err='MY table'})",
    "x = 1 return 1",
    "return #ARGV .. #KEYS .. (ARGV[1] or '-')",
    "return redis.sha1hex(ARGV[1] or '')",
    "return redis.sha1hex('')",
    "return {string.byte(ARGV[1], 1, -1)}",
    "return (pcall(cjson.decode, ARGV[1])) and 1 or 0",
    "return math.floor(7.9) + select('#', 1, nil, nil)",
    "return #redis.call('TIME')",
    "return redis.call('HGETALL', KEYS[1])",
    "return redis.call('PING')",
    "return redis.call('SUBSCRIBE', 'x')",
    "local t = {} for i = 1, 300 do t[i] = i end return redis.call('RPUSH', KEYS[1], unpack(t))",
    "this is no lua",
    "return string.format('%5.1f|%s', 3.14159, 'x')",
    "return redis.call('LPUSH', KEYS[1], true)",
)
_TEXTS = (
    b"x",
    b"yy",
    b"{}",
    b"-1",
    b"0",
    b"007",
    b" 1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"1.5",
    b"",
    b"a\x00b\r\n",
)


def plain_command(rng: random.Random, key: bytes, other: bytes) -> tuple[Argument, ...]:
    """Return a command that may or may not make sense."""

    def text() -> bytes:
        return rng.choice(_TEXTS)

    def index() -> Argument:
        return rng.choice((0, 1, 2, -1, -2, 5, -9, "x", 100))

    def field() -> bytes:
        return rng.choice((b"version", b"f", b"length", b"digest", b"", b"g"))

    forms: tuple[Callable[[], tuple[Argument, ...]], ...] = (
        lambda: ("GET", key),
        lambda: ("SET", key, text()),
        lambda: ("SET", key, text(), rng.choice(("NX", "XX", "GET", "KEEPTTL", "BAD"))),
        lambda: ("SET", key, text(), rng.choice(("EX", "PX", "PXAT")), rng.choice((100_000, 0, -5, "x", 10**14))),
        lambda: ("SETNX", key, text()),
        lambda: ("MGET", key, other),
        lambda: ("INCR", key),
        lambda: ("INCRBY", key, text()),
        lambda: ("APPEND", key, text()),
        lambda: ("STRLEN", key),
        lambda: ("RPUSH", key, text(), text()),
        lambda: ("LPUSH", key, text(), text()),
        lambda: ("RPUSHX", key, text()),
        lambda: ("LPOP", key),
        lambda: ("RPOP", key, rng.choice((0, 1, 3, -1))),
        lambda: ("LLEN", key),
        lambda: ("LINDEX", key, index()),
        lambda: ("LRANGE", key, index(), index()),
        lambda: ("LSET", key, index(), text()),
        lambda: ("LTRIM", key, index(), index()),
        lambda: ("LREM", key, index(), text()),
        lambda: ("LPOS", key, text()),
        lambda: ("LPOS", key, text(), rng.choice(("RANK", "COUNT", "MAXLEN", "NONE")), rng.choice((0, 1, -1, 2, -2))),
        lambda: ("LPOS", key, text(), "RANK", rng.choice((1, -1, 2)), "COUNT", rng.choice((0, 2)), "MAXLEN", 3),
        lambda: ("HSET", key, field(), text()),
        lambda: ("HSET", key, field(), text(), field()),
        lambda: ("HSETNX", key, field(), text()),
        lambda: ("HGET", key, field()),
        lambda: ("HMGET", key, field(), field()),
        lambda: ("HGETALL", key),
        lambda: ("HDEL", key, field(), field()),
        lambda: ("HLEN", key),
        lambda: ("HEXISTS", key, field()),
        lambda: ("HINCRBY", key, field(), rng.choice((1, -3, "x"))),
        lambda: ("DEL", key, other),
        lambda: ("EXISTS", key, other, key),
        lambda: ("TYPE", key),
        lambda: ("PEXPIRE", key, rng.choice((300_000, -1, 0, "x"))),
        lambda: ("EXPIRE", key, rng.choice((300, -1, 2**62))),
        lambda: ("PEXPIREAT", key, rng.choice((1, 4_000_000_000_000))),
        lambda: ("PERSIST", key),
        lambda: ("PTTL", key),
        lambda: ("TTL", key),
        lambda: ("PING",),
        lambda: ("PING", text()),
        lambda: ("PING", text(), text()),
        lambda: ("ECHO", text()),
        lambda: ("ECHO",),
        lambda: ("NOSUCH", text(), key),
        lambda: ("SELECT", rng.choice((0, "x"))),
        lambda: ("WAIT", 0, 0),
        lambda: ("WAIT", rng.choice((0, 1, "x")), rng.choice((1, "x", -1))),
        lambda: ("EVALSHA", "0" * 40, 1, key),
        lambda: ("EVAL", rng.choice(_SOURCES), 1, key),
        lambda: ("EVAL", rng.choice(_SOURCES), 1, key, text(), text()),
        lambda: ("EVAL", rng.choice(_SOURCES), rng.choice((0, 2, -1, 9, "x")), key, text()),
        lambda: ("SCRIPT", "LOAD", rng.choice(_SOURCES)),
        lambda: ("SCRIPT", "EXISTS", "0" * 40),
        lambda: ("ACL", "WHOAMI"),
        lambda: ("CLIENT", rng.choice(("NOSUCH", "a\x00b", "")), "x"),
        lambda: (rng.choice(("CLIENT", "CONFIG", "SCRIPT", "ACL")),),
        lambda: ("CLUSTER", rng.choice(("SLOTS", "INFO", "MYID"))),
        lambda: (rng.choice(("ASKING", "READONLY", "READWRITE")),),
        lambda: ("REPLICAOF", "localhost", "x"),
        lambda: ("CLIENT", "GETNAME"),
    )
    if rng.random() < 0.3:
        return "EVAL", rng.choice(_SOURCES), 1, key, text()
    return rng.choice(forms)()
