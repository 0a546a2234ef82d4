"""INFO of many masters -> INFO of one server.

Strategy. Each node's text becomes sections of fields; fields of one name become one by what the
tables say: sums, the most, the least, else what the first node says. Sizes for people and ratios
are worked out anew from the merged numbers. Lines such as `cmdstat_get:calls=1,usec=5` are fields
of their own, merged part by part. What rproxy knows better (its own clients, port, role) replaces
what the nodes say.

Rules. Nothing here knows the network. Sections and fields keep the first node's order; what only
later nodes have follows. A value that is no number where a sum is wanted is taken from the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from rproxy.engine.words import words

Sections = dict[str, dict[str, str]]
"""Title -> field -> value, in the order of the text."""

SUMS = words(
    """
    blocked_clients clients_in_timeout_table tracking_clients cluster_connections
    used_memory used_memory_rss used_memory_peak used_memory_overhead used_memory_startup
    used_memory_dataset used_memory_lua used_memory_vm_eval used_memory_scripts_eval
    used_memory_vm_functions used_memory_vm_total used_memory_functions used_memory_scripts
    allocator_allocated allocator_active allocator_resident allocator_frag_bytes allocator_muzzy
    allocator_rss_bytes rss_overhead_bytes mem_fragmentation_bytes mem_not_counted_for_evict
    mem_replication_backlog mem_total_replication_buffers mem_clients_slaves mem_clients_normal
    mem_cluster_links mem_aof_buffer maxmemory lazyfree_pending_objects lazyfreed_objects
    current_cow_peak current_cow_size current_save_keys_processed current_save_keys_total
    rdb_changes_since_last_save rdb_saves rdb_last_cow_size rdb_last_load_keys_expired
    rdb_last_load_keys_loaded aof_rewrites aof_last_cow_size aof_current_size aof_base_size
    aof_buffer_length aof_delayed_fsync aof_rewrites_consecutive_failures
    total_connections_received total_commands_processed instantaneous_ops_per_sec
    total_net_input_bytes total_net_output_bytes total_net_repl_input_bytes
    total_net_repl_output_bytes instantaneous_input_kbps instantaneous_output_kbps
    instantaneous_input_repl_kbps instantaneous_output_repl_kbps rejected_connections
    sync_full sync_partial_ok sync_partial_err expired_keys expired_subkeys
    expired_time_cap_reached_count expire_cycle_cpu_milliseconds evicted_keys evicted_clients
    evicted_scripts total_eviction_exceeded_time keyspace_hits keyspace_misses
    pubsubshard_channels total_forks migrate_cached_sockets slave_expires_tracked_keys
    active_defrag_hits active_defrag_misses active_defrag_key_hits active_defrag_key_misses
    total_active_defrag_time tracking_total_keys tracking_total_items tracking_total_prefixes
    unexpected_error_replies total_error_replies dump_payload_sanitizations total_reads_processed
    total_writes_processed io_threaded_reads_processed io_threaded_writes_processed
    reply_buffer_shrinks reply_buffer_expands eventloop_cycles
    instantaneous_eventloop_cycles_per_sec
    acl_access_denied_auth acl_access_denied_cmd acl_access_denied_key acl_access_denied_channel
    used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children
    used_cpu_sys_main_thread used_cpu_user_main_thread
    """
)
"""Fields that count what happened or what is held."""

MOST = words(
    """
    client_recent_max_input_buffer client_recent_max_output_buffer loading async_loading
    used_memory_peak_perc current_cow_size_age current_fork_perc rdb_bgsave_in_progress
    rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec aof_rewrite_in_progress
    aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec
    aof_pending_rewrite module_fork_in_progress expired_stale_perc latest_fork_usec
    current_eviction_exceeded_time current_active_defrag_time active_defrag_running
    master_repl_offset number_of_cached_scripts number_of_functions number_of_libraries
    pubsub_channels pubsub_patterns total_system_memory
    """
)
"""Fields of which the greatest tells most: every node has the same, or one is worth a look."""

LEAST = words("redis_version valkey_version uptime_in_seconds uptime_in_days rdb_last_save_time")
"""Fields of which all nodes have at least so much."""

RATIOS = {
    "mem_fragmentation_ratio": ("used_memory_rss", "used_memory"),
    "allocator_frag_ratio": ("allocator_active", "allocator_allocated"),
    "allocator_rss_ratio": ("allocator_resident", "allocator_active"),
    "rss_overhead_ratio": ("used_memory_rss", "allocator_resident"),
}
"""Field -> the fields whose quotient it is."""

FAILURES = {"rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"}
"""Fields that say "ok" only where all nodes do."""

OF_ONE_NODE = re.compile(r"slave\d+|min_slaves_good_slaves")
"""Fields that mean nothing for a server without replicas of its own."""

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_HUMAN = "_human"


def parse(text: str) -> Sections:
    """An INFO text as sections; lines that are no field are passed over."""
    sections: Sections = {}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            fields = sections.setdefault(line[2:].strip(), {})
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value
    return sections


def written(sections: Sections) -> str:
    """Sections as INFO's text."""
    return "\r\n".join(
        f"# {title}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in fields.items())
        for title, fields in sections.items()
    )


def merged(nodes: Sequence[Sections], own: Mapping[str, str]) -> Sections:
    """One server's sections; `own` are fields that rproxy knows better, where nodes have them."""
    result: Sections = {}
    for title in _in_order(nodes):
        parts = [node[title] for node in nodes if title in node]
        fields = {
            name: own.get(name) or _one(name, [part[name] for part in parts if name in part])
            for name in _in_order(parts)
            if not OF_ONE_NODE.fullmatch(name)
        }
        _work_out(fields)
        result[title] = fields
    return result


def _in_order(parts: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order in which they come."""
    return list(dict.fromkeys(name for part in parts for name in part))


def _one(name: str, values: list[str]) -> str:
    """The values of one field become one."""
    for prefix, rule in COMPOSITES:
        if name.startswith(prefix):
            return rule([_split(value) for value in values])
    if name in FAILURES:
        return next((value for value in values if value != "ok"), "ok")
    for names, choose in CHOICES:
        if name in names:
            return choose(values)
    return values[0]


def _sum(values: list[str]) -> str:
    """The sum, with as many decimals as the values have."""
    if not all(map(_is_number, values)):
        return values[0]
    decimals = max(len(value.partition(".")[2]) for value in values)
    if decimals:
        return f"{sum(map(float, values)):.{decimals}f}"
    return str(sum(map(int, values)))


def _most(values: list[str]) -> str:
    return max(values, key=_rank)


def _least(values: list[str]) -> str:
    return min(values, key=_rank)


CHOICES: tuple[tuple[frozenset[str], Callable[[list[str]], str]], ...] = (
    (SUMS, _sum),
    (MOST, _most),
    (LEAST, _least),
)
"""Which fields -> how their values become one."""


def _rank(value: str) -> tuple[float, ...]:
    """How great a value is: a version by its parts, a percentage by its number."""
    if _VERSION.fullmatch(value) and value.count(".") > 1:
        return tuple(map(float, value.split(".")))
    number = value.rstrip("%")
    return (float(number),) if _is_number(number) else (0.0,)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"-?\d+(?:\.\d+)?", value) is not None


def _work_out(fields: dict[str, str]) -> None:
    """Replace what follows from other fields of the section."""
    for name in fields:
        if name.endswith(_HUMAN) and fields.get(name.removesuffix(_HUMAN), "").isdigit():
            fields[name] = human(int(fields[name.removesuffix(_HUMAN)]))
        if name in RATIOS:
            above, below = (fields.get(part, "") for part in RATIOS[name])
            if above.isdigit() and below.isdigit() and int(below):
                fields[name] = f"{int(above) / int(below):.2f}"


def human(size: int) -> str:
    """A size as Redis writes it for people, such as 943.20K."""
    if size < 1024:
        return f"{size}B"
    amount, unit, units = float(size), "", "KMGTP"
    while amount >= 1024 and units:
        amount, unit, units = amount / 1024, units[0], units[1:]
    return f"{amount:.2f}{unit}"


# -- fields of several parts: db0:keys=1,expires=0,avg_ttl=0 --

Parts = dict[str, str]


def _split(value: str) -> Parts:
    return {name: number for name, _, number in (p.partition("=") for p in value.split(","))}


def _joined(parts: Parts) -> str:
    return ",".join(f"{name}={number}" for name, number in parts.items())


def _added(parts: list[Parts]) -> Parts:
    return {name: _sum([p[name] for p in parts if name in p]) for name in _in_order(parts)}


def _counts(parts: list[Parts]) -> str:
    return _joined(_added(parts))


def _calls(parts: list[Parts]) -> str:
    """A command's calls: the time per call follows from the sums."""
    total = _added(parts)
    if total.get("calls", "0") != "0" and "usec" in total:
        total["usec_per_call"] = f"{int(total['usec']) / int(total['calls']):.2f}"
    return _joined(total)


def _slowest(parts: list[Parts]) -> str:
    """Percentiles cannot be added: the slowest node's are shown."""
    return _joined({name: _most([p[name] for p in parts if name in p]) for name in parts[0]})


def _keyspace(parts: list[Parts]) -> str:
    """A database's keys; the average time to live counts each node by its keys that expire."""
    total = _added(parts)
    expiring = [(int(p.get("expires", 0)), int(p.get("avg_ttl", 0))) for p in parts]
    weight = sum(count for count, _ in expiring)
    if "avg_ttl" in total:
        total["avg_ttl"] = str(sum(c * ttl for c, ttl in expiring) // weight if weight else 0)
    return _joined(total)


COMPOSITES: tuple[tuple[str, Callable[[list[Parts]], str]], ...] = (
    ("cmdstat_", _calls),
    ("errorstat_", _counts),
    ("latency_percentiles_usec_", _slowest),
    ("db", _keyspace),
)
"""How a field's name begins -> how its parts are merged."""
