"""INFO of several nodes as one server's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.engine.info import CHOICES, RATIOS, human, merged, parse, written

FIRST = """# Server\r
redis_version:7.0.15\r
uptime_in_seconds:90\r
tcp_port:7001\r
os:Linux\r
\r
# Memory\r
used_memory:1000\r
used_memory_human:1000B\r
used_memory_rss:3000\r
mem_fragmentation_ratio:3.00\r
used_memory_peak_perc:90.10%\r
\r
# Persistence\r
aof_last_write_status:ok\r
\r
# Stats\r
keyspace_hits:7\r
instantaneous_input_kbps:0.10\r
\r
# Replication\r
role:master\r
connected_slaves:1\r
slave0:ip=10.0.0.1,port=1,state=online,offset=9,lag=0\r
\r
# Commandstats\r
cmdstat_get:calls=1,usec=10,usec_per_call=10.00,rejected_calls=0,failed_calls=0\r
cmdstat_config|get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=2,failed_calls=0\r
\r
# Latencystats\r
latency_percentiles_usec_get:p50=1.001,p99=20.003\r
\r
# Errorstats\r
errorstat_ERR:count=1\r
\r
# Keyspace\r
db0:keys=10,expires=1,avg_ttl=100\r
"""
SECOND = """# Server\r
redis_version:7.0.9\r
uptime_in_seconds:1000\r
tcp_port:7002\r
os:Linux\r
\r
# Memory\r
used_memory:2000\r
used_memory_human:1.95K\r
used_memory_rss:3000\r
mem_fragmentation_ratio:1.50\r
used_memory_peak_perc:100.00%\r
\r
# Persistence\r
aof_last_write_status:err\r
\r
# Stats\r
keyspace_hits:1\r
instantaneous_input_kbps:1.25\r
only_here:5\r
\r
# Commandstats\r
cmdstat_get:calls=3,usec=10,usec_per_call=3.33,rejected_calls=1,failed_calls=0\r
\r
# Latencystats\r
latency_percentiles_usec_get:p50=2.001,p99=3.003\r
\r
# Errorstats\r
errorstat_ERR:count=2\r
errorstat_WRONGTYPE:count=5\r
\r
# Keyspace\r
db0:keys=5,expires=3,avg_ttl=200\r
"""
EXPECTED = {
    "Server": {"redis_version": "7.0.9", "uptime_in_seconds": "90", "tcp_port": "6380"},
    "Memory": {
        "used_memory": "3000",
        "used_memory_human": "2.93K",
        "mem_fragmentation_ratio": "2.00",
        "used_memory_peak_perc": "100.00%",
    },
    "Persistence": {"aof_last_write_status": "err"},
    "Stats": {"keyspace_hits": "8", "instantaneous_input_kbps": "1.35", "only_here": "5"},
    "Replication": {"role": "master", "connected_slaves": "0"},
    "Commandstats": {
        "cmdstat_get": "calls=4,usec=20,usec_per_call=5.00,rejected_calls=1,failed_calls=0",
        "cmdstat_config|get": "calls=0,usec=0,usec_per_call=0.00,rejected_calls=2,failed_calls=0",
    },
    "Latencystats": {"latency_percentiles_usec_get": "p50=2.001,p99=20.003"},
    "Errorstats": {"errorstat_ERR": "count=3", "errorstat_WRONGTYPE": "count=5"},
    "Keyspace": {"db0": "keys=15,expires=4,avg_ttl=175"},
}
OWN = {"tcp_port": "6380", "connected_slaves": "0", "connected_clients": "1"}

BOTH = merged([parse(FIRST), parse(SECOND)], OWN)


@pytest.mark.parametrize("title", EXPECTED)
def test_fields_of_all_nodes_become_one(title: str) -> None:
    assert {name: BOTH[title].get(name) for name in EXPECTED[title]} == EXPECTED[title]


def test_one_node_s_text_stays_as_it_is_but_for_its_replicas() -> None:
    without_replica = "".join(
        line for line in FIRST.splitlines(keepends=True) if not line.startswith("slave0")
    )
    assert written(merged([parse(FIRST)], {})) == without_replica


def test_sections_and_fields_keep_their_order() -> None:
    assert list(BOTH) == [line[2:] for line in FIRST.splitlines() if line.startswith("# ")]
    assert list(BOTH["Server"]) == ["redis_version", "uptime_in_seconds", "tcp_port", "os"]


def test_what_rproxy_knows_better_is_not_added_where_nobody_asked() -> None:
    assert "connected_clients" not in str(BOTH)


def test_a_field_has_one_meaning() -> None:
    names = [name for names, _ in CHOICES for name in names] + [*RATIOS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (965840, "943.20K"),
        (25276510208, "23.54G"),
        (1 << 60, "1024.00P"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


@given(st.lists(st.text(), max_size=4))
def test_any_text_can_be_merged(texts: list[str]) -> None:
    written(merged([parse(text) for text in texts], {}))
