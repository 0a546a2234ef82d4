"""Every reply is what one plain server says: the same commands to both, in RESP2 and RESP3.

Each topic is a conversation: its commands go to a plain server and through the proxy, first one by
one, then again as one pipeline, and the replies must be the same, to the byte. Keys of one command
share a hash tag where Redis Cluster wants them in one slot; commands that rproxy splits do not.
Replies that no two servers give alike are compared by their shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rproxy.wire.frames import pack
from rproxy.wire.inline import split_words
from tests.live.plain import Plain
from tests.live.proxies import Proxy, Wire

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])

TOPICS: dict[str, str] = {
    "strings": r"""
        SET a 1 | GET a | APPEND a 23 | STRLEN a | INCR a | INCRBY a 5 | INCRBYFLOAT a 0.5
        DECR a | GETSET a 7 | GETDEL a | GET a | SETNX a x | SETNX a y | SETEX b 100 v
        PSETEX c 100000 v | SET a 1 XX GET | SET a 2 NX GET | SET a 1 KEEPTTL | SET a 1 EX 0
        SET a 1 FOO | SET a | SETRANGE a 3 zz | GETRANGE a 0 -1 | SUBSTR a 0 1 | GETEX b PERSIST
        TTL b | GETEX b EX x | LCS {l}1 {l}2 | SET {l}1 ohmytext | SET {l}2 mynewtext
        LCS {l}1 {l}2 | LCS {l}1 {l}2 LEN | LCS {l}1 {l}2 IDX MINMATCHLEN 3 WITHMATCHLEN
        INCR l | SET l x | INCR l | SET "\x00\r\n\xff" "a b\r\nc" | GET "\x00\r\n\xff"
        SET "" empty | GET ""
    """,
    "several keys": r"""
        MSET a 1 b 2 c 3 | MGET a b c d a | MGET a | MSET a | MSET a 1 b | DEL a b
        EXISTS a b c c | TOUCH a c | UNLINK c d | MSET a 1 a 2 a 3 | GET a | MGET | DEL | EXISTS
        LPUSH l 1 | MGET a l | MSETNX {t}1 x {t}2 y | MSETNX {t}2 x {t}3 y | MGET {t}1 {t}2 {t}3
        DBSIZE
    """,
    "keys": r"""
        SET a 1 | TYPE a | TYPE none | EXPIRE a 100 | TTL a | PERSIST a | TTL a | EXPIRE a x
        EXPIREAT a 1 | EXISTS a | SET {r}a 1 | RENAME {r}a {r}b | RENAME {r}a {r}b
        RENAMENX {r}b {r}c | COPY {r}c {r}d | COPY {r}c {r}d | COPY {r}c {r}d REPLACE
        OBJECT ENCODING {r}c | OBJECT REFCOUNT {r}c | OBJECT HELP | OBJECT FOO {r}c
        OBJECT ENCODING nokey | DUMP nokey | EXPIRETIME nokey | EXPIRE {r}c 100 NX
        EXPIRE {r}c 50 GT | EXPIRE {r}c 10 FOO | PEXPIRE {r}c 9999999999999999999
        RESTORE k 0 bad | SORT nokey | DBSIZE | RANDOMKEY x | SETBIT bits 7 1 | BITCOUNT bits
        BITPOS bits 1 | BITFIELD bits SET u8 0 255 GET u8 0 | BITFIELD_RO bits GET u8 0
        BITFIELD_RO bits SET u8 0 1 | BITOP NOT {b}d {b}s | GETBIT bits 7 | SETBIT bits -1 1
        SETBIT bits 1 2 | BITCOUNT bits 0 0 BIT | BITCOUNT bits 0
    """,
    "lists": r"""
        RPUSH l a b c | LPUSH l z | LRANGE l 0 -1 | LLEN l | LINDEX l 1 | LINSERT l BEFORE a y
        LSET l 0 q | LSET l 99 q | LREM l 0 a | LTRIM l 0 2 | LPOP l 2 | RPOP l | LPOP none
        LPOP l -1 | LPOP none 2 | RPUSH {m}s 1 2 3 | LMOVE {m}s {m}d LEFT RIGHT
        RPOPLPUSH {m}s {m}d | LRANGE {m}d 0 -1 | LMPOP 2 {m}s {m}d LEFT COUNT 2 | LMPOP 0 x LEFT
        LPOS {m}d 1 RANK -1 | LPUSHX none x | SET s 1 | LPUSH s 1 | LLEN s | LRANGE l x y
        LMOVE {m}s {m}d UP DOWN | SORT {m}d DESC | SORT {m}d STORE {m}e | LRANGE {m}e 0 -1
        SORT_RO {m}d ALPHA LIMIT 0 1
    """,
    "hashes": r"""
        HSET h f v | HGET h f | HGETALL h | HMSET h g 2 | HMGET h f g x | HINCRBY h g 3
        HEXISTS h f | HINCRBYFLOAT h g 0.5 | HDEL h f x | HLEN h | HKEYS h | HVALS h
        HSETNX h g 1 | HSTRLEN h g | HRANDFIELD h 0 | HRANDFIELD none
        HRANDFIELD h -1 WITHVALUES | HSCAN h 0 | HSCAN h x | HSET h f | HGETALL none
        HGET none f | SET s 1 | HGET s f | HINCRBY h g x | HSCAN none 0
    """,
    "sets": r"""
        SADD s 1 2 3 | SCARD s | SISMEMBER s 1 | SMISMEMBER s 1 9 | SREM s 1 | SMEMBERS s
        SPOP none | SADD {t}a 1 2 3 | SADD {t}b 2 3 4 | SINTER {t}a {t}b | SUNION {t}a {t}b
        SDIFF {t}a {t}b | SINTERCARD 2 {t}a {t}b | SINTERCARD 2 {t}a {t}b LIMIT 1
        SINTERSTORE {t}c {t}a {t}b | SMOVE {t}a {t}b 1 | SRANDMEMBER none | SRANDMEMBER none 3
        SSCAN {t}c 0 | SPOP {t}c -1 | SINTERCARD 0 {t}a | SADD s | SET x 1 | SADD x 1
        SMEMBERS none | SDIFFSTORE {t}d {t}a {t}b
    """,
    "sorted sets": r"""
        ZADD z 1 a 2 b 3 c | ZADD z XX CH 5 a | ZADD z NX XX 1 a | ZADD z INCR 2 a | ZCARD z
        ZSCORE z a | ZRANGE z 0 -1 WITHSCORES | ZRANGE z 0 -1 REV | ZRANGE z (1 5 BYSCORE
        ZRANGEBYSCORE z -inf +inf | ZRANGEBYLEX z - + | ZREVRANGE z 0 0 WITHSCORES | ZRANK z b
        ZREVRANK z b | ZRANK z none | ZINCRBY z 1.5 b | ZMSCORE z a none | ZCOUNT z 0 10
        ZPOPMIN z | ZPOPMAX z 2 | ZPOPMIN none | ZADD {t}a 1 x 2 y | ZADD {t}b 2 y 3 w
        ZUNION 2 {t}a {t}b WITHSCORES | ZINTER 2 {t}a {t}b | ZDIFF 2 {t}a {t}b
        ZUNIONSTORE {t}c 2 {t}a {t}b WEIGHTS 2 3 AGGREGATE MAX | ZINTERCARD 2 {t}a {t}b
        ZRANGESTORE {t}d {t}c 0 -1 | ZMPOP 1 {t}c MIN COUNT 2 | ZREM {t}a x
        ZREMRANGEBYRANK {t}b 0 0 | ZSCAN {t}b 0 | ZRANDMEMBER none | ZADD z a b | ZADD z nan b
        ZUNION 0 z | ZRANGE z 0 1 LIMIT 0 1
        GEOADD {g}p 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
        GEODIST {g}p Palermo Catania km | GEOHASH {g}p Palermo | GEOPOS {g}p Palermo none
        GEOSEARCH {g}p FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST | GEOADD {g}p 200 100 x
        GEOSEARCHSTORE {g}q {g}p FROMMEMBER Palermo BYBOX 400 400 km
        GEORADIUS {g}p 15 37 200 km
    """,
    "streams": r"""
        XADD s 1-1 f v | XADD s 1-1 f v | XADD s 2-1 g w | XLEN s | XRANGE s - +
        XREVRANGE s + - COUNT 1 | XREAD COUNT 1 STREAMS s 0 | XREAD STREAMS s 9
        XREAD STREAMS s | XGROUP CREATE s g 0 | XGROUP CREATE s g 0
        XREADGROUP GROUP g c STREAMS s > | XPENDING s g | XACK s g 1-1 | XDEL s 1-1
        XREADGROUP GROUP none c STREAMS s > | XTRIM s MAXLEN 1 | XINFO GROUPS s
        XGROUP SETID s g 0 | XGROUP CREATECONSUMER s g d | XGROUP DELCONSUMER s g d
        XCLAIM s g c 0 2-1 JUSTID | XAUTOCLAIM s g c 0 0 JUSTID | XGROUP DESTROY s g
        XINFO FOO s | XGROUP FOO | XADD s * f | XINFO STREAM none | XSETID s 5-1
        XREAD STREAMS {t}a {t}b 0 0
    """,
    "hyperloglogs": r"""
        PFADD {t}a x y z | PFCOUNT {t}a | PFADD {t}b z w | PFMERGE {t}c {t}a {t}b
        PFCOUNT {t}a {t}b | PFADD {t}a x | SET s 1 | PFCOUNT s | PFADD
    """,
    "scripts": r"""
        EVAL "return {KEYS[1],ARGV[1],1,2.7,false,'x'}" 1 k a
        EVAL "return redis.call('SET',KEYS[1],1)" 1 k
        EVAL "return redis.error_reply('MY error')" 0
        EVAL "return redis.status_reply('FINE')" 0 | EVAL "return {1,{2,{3}}}" 0
        EVAL "syntax error" 0 | EVAL "return 1" x | EVAL "return 1" -1 | EVAL "return 1" 2 k
        EVAL_RO "return redis.call('GET',KEYS[1])" 1 k | SCRIPT LOAD "return 1"
        EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 k | SCRIPT EXISTS e0 e1
        SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db
        EVALSHA ffffffffffffffffffffffffffffffffffffffff 0 | SCRIPT FLUSH SYNC
        SCRIPT FLUSH FOO | SCRIPT KILL | SCRIPT FOO | SCRIPT | EVALSHA short 0
    """,
    "whole keyspace": r"""
        DBSIZE | SET only 1 | DBSIZE | KEYS * | KEYS x* | RANDOMKEY
        SCAN 0 COUNT 1000 MATCH zzz* TYPE FOO X | SCAN x | SCAN | SCAN 0 COUNT 0
        SCAN 0 COUNT x | SCAN 0 FOO | KEYS | FLUSHALL FOO | FLUSHDB ASYNC | DBSIZE | RANDOMKEY
        KEYS * | FLUSHALL SYNC
    """,
    "connection": r"""
        PING | PING x | PING x y | ECHO x | ECHO | SELECT 0 | SELECT x | GET | NOSUCH a b
        nosuch | CLIENT SETNAME me | CLIENT GETNAME | CLIENT SETNAME "a b"
        CLIENT FOO | CLIENT | COMMAND COUNT x | COMMAND FOO | RESET | HELLO 9 | AUTH x | TIME x
        COMMAND GETKEYS MSET a 1 b 2 | COMMAND GETKEYS GET | COMMAND INFO nosuch
        CLIENT PAUSE x | CLIENT PAUSE -1 | CLIENT PAUSE 1 FOO | CLIENT PAUSE 1 ALL x
        CLIENT UNPAUSE | CLIENT UNPAUSE x | CLIENT UNBLOCK 999999999 | CLIENT UNBLOCK x
        CLIENT UNBLOCK 9 FOO | CLIENT UNBLOCK 9 ERROR x
    """,
    "server": r"""
        SLOWLOG RESET | SLOWLOG LEN | SLOWLOG GET | SLOWLOG GET x | SLOWLOG GET 1 2
        SLOWLOG HELP | SLOWLOG FOO | SLOWLOG | LATENCY RESET | LATENCY LATEST | LATENCY HISTORY x
        LATENCY GRAPH x | LATENCY DOCTOR | LATENCY HELP | LATENCY FOO | LATENCY HISTOGRAM none
        MEMORY PURGE | MEMORY USAGE none | MEMORY HELP | MEMORY FOO | OBJECT HELP
        COMMAND COUNT | COMMAND LIST FILTERBY PATTERN xrea? | COMMAND DOCS get
        COMMAND INFO get mget | COMMAND HELP | ACL WHOAMI | ACL WHOAMI x | ACL CAT hyperloglog x
        ACL CAT foo | ACL HELP | ACL FOO | ACL USERS | ACL DRYRUN default GET x
        LOLWUT VERSION 5 1 1 1 | MODULE LIST | MODULE FOO
        SENTINEL masters | CONFIG GET maxmemory | CONFIG GET save | CONFIG GET maxmemory-policy
        CONFIG GET appendonly | CONFIG GET timeout | CONFIG GET notify-keyspace-events
        CONFIG GET maxclients | CONFIG GET cluster-enabled | CONFIG GET | CONFIG HELP | CONFIG FOO
        CONFIG GET nosuch | CONFIG GET requirepass | ROLE x | LASTSAVE x | INFO nosuch | DEBUG
        CLUSTER SLOTS | CLUSTER NODES | CLUSTER INFO | CLUSTER MYID | CLUSTER SHARDS | CLUSTER
        CLUSTER COUNTKEYSINSLOT 1 | SWAPDB 0 | MEMORY USAGE | SAVE x
    """,
}

SHAPED = re.compile(rb"at [0-9.:]+|user_script:\d+")
"""Parts of texts that differ between servers."""


Send = Callable[[Wire, Sequence[list[bytes]]], list[bytes]]
"""Sends a conversation and returns the replies."""


def commands(topic: str) -> list[list[bytes]]:
    """A topic's conversation, as lists of arguments."""
    texts = [text.strip() for line in topic.splitlines() for text in line.split("|")]
    found = [split_words(text.encode()) for text in texts if text]
    assert None not in found
    return [words for words in found if words]


def one_by_one(wire: Wire, conversation: Sequence[list[bytes]]) -> list[bytes]:
    return [normal(wire.ask(*words)) for words in conversation]


def piped(wire: Wire, conversation: Sequence[list[bytes]]) -> list[bytes]:
    wire.raw(b"".join(map(pack, conversation)))
    return [normal(reply) for reply in wire.replies(len(conversation))]


def normal(reply: bytes) -> bytes:
    return SHAPED.sub(b"", reply)


def kind(reply: bytes) -> bytes:
    """An error's first word; the whole of any other reply. Before 7.0 texts were other ones."""
    return reply.split(b" ")[0] if reply.startswith(b"-") else reply


def known_to(plain: Plain, conversation: list[list[bytes]]) -> list[list[bytes]]:
    """Without the commands that this version of the server does not have."""
    names = {words[0] for words in conversation} - {b"NOSUCH", b"nosuch"}
    unknown = {name for name in names if not plain.knows(name)}
    return [words for words in conversation if words[0] not in unknown]


@PROTOCOLS
@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("send", [one_by_one, piped])
def test_topic(proxy: Proxy, plain: Plain, topic: str, send: Send, protocol: int) -> None:
    with plain.connect() as one, proxy.connect() as other:
        conversation = known_to(plain, commands(TOPICS[topic]))
        replies = []
        for wire in (one, other):
            wire.ask(b"FLUSHALL")
            wire.ask(b"HELLO", b"%d" % protocol)
            replies.append(send(wire, conversation))
    texts_differ = not plain.knows(b"FUNCTION")
    wrong = [
        (b" ".join(words), expected, got)
        for words, expected, got in zip(conversation, *replies, strict=True)
        if expected != got and not (texts_differ and kind(expected) == kind(got))
    ]
    assert not wrong


# -- random conversations --

NAMES = st.sampled_from([b"a", b"b", b"c", b"{a}2", b"{a}3"])
VALUES = st.sampled_from([b"", b"1", b"-5", b"x", b"a\r\nb", b"0.5", b"99999999999999999999"])


def command(name: bytes, *parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.tuples(*parts).map(lambda found: [name, *found])


RANDOM = st.lists(
    st.one_of(
        command(b"SET", NAMES, VALUES),
        command(b"GET", NAMES),
        command(b"APPEND", NAMES, VALUES),
        command(b"INCRBY", NAMES, VALUES),
        command(b"MGET", NAMES, NAMES, NAMES),
        command(b"MSET", NAMES, VALUES, NAMES, VALUES),
        command(b"DEL", NAMES, NAMES),
        command(b"EXISTS", NAMES, NAMES, NAMES),
        command(b"RPUSH", NAMES, VALUES, VALUES),
        command(b"LPOP", NAMES),
        command(b"LRANGE", NAMES, VALUES, VALUES),
        command(b"SADD", NAMES, VALUES),
        command(b"HSET", NAMES, VALUES, VALUES),
        command(b"HGETALL", NAMES),
        command(b"ZADD", NAMES, VALUES, VALUES),
        command(b"TYPE", NAMES),
        command(b"DBSIZE"),
        command(b"ECHO", VALUES),
        command(b"GET"),
        command(b"EVAL", st.just(b"return redis.call('INCR', KEYS[1])"), st.just(b"1"), NAMES),
        command(b"FLUSHALL"),
    ),
    max_size=40,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=RANDOM, protocol=st.sampled_from([2, 3]), pipelined=st.booleans())
def test_random_conversations(
    proxy: Proxy, plain: Plain, conversation: list[list[bytes]], protocol: int, pipelined: bool
) -> None:
    send = piped if pipelined else one_by_one
    replies = []
    for side in (plain, proxy):
        with side.connect() as wire:
            wire.ask(b"FLUSHALL")
            wire.ask(b"HELLO", b"%d" % protocol)
            replies.append(send(wire, conversation))
    assert replies[0] == replies[1]
