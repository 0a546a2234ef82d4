"""Existing clients with their defaults: the command line tools of Redis, redis-py, two of Node.js.

What each sends on its own when it connects (HELLO, CLIENT SETINFO, COMMAND DOCS, INFO, CONFIG GET)
has to be answered in a way that it can live with. Programs that are not there are skipped.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from rproxy.demo_servers import HOST
from rproxy.wire.frames import pack
from tests.live.proxies import Proxy

PATIENCE = 60.0
"""Seconds that a program may take; it takes a few at most."""
NODE_PACKAGES = ("ioredis@5.8.0", "redis@5.8.2")


def tool(name: str) -> str:
    """The program's path; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# -- redis-cli --


def cli(proxy: Proxy, *words: str, stdin: bytes = b"") -> list[str]:
    """The lines that redis-cli prints."""
    command = [tool("redis-cli"), "-p", str(proxy.port), *words]
    ended = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stderr) == (0, b""), ended
    return ended.stdout.decode().splitlines()


@pytest.mark.parametrize("version", [(), ("-2",), ("-3",)], ids=["default", "RESP2", "RESP3"])
def test_cli_with_one_command(proxy: Proxy, version: tuple[str, ...]) -> None:
    assert cli(proxy, *version, "set", "cli", "1") == ["OK"]
    assert cli(proxy, *version, "mget", "cli", "cli:none") == ["1", ""]
    assert cli(proxy, *version, "--no-raw", "incr", "cli") == ["(integer) 2"]
    assert cli(proxy, *version, "echo", "a b") == ["a b"]
    assert "redis_mode:standalone" in cli(proxy, *version, "info")
    assert cli(proxy, *version, "nosuch")[0].startswith("ERR unknown command")
    assert cli(proxy, *version, "-r", "3", "incr", "cli") == ["3", "4", "5"]
    assert cli(proxy, *version, "del", "cli", "cli:none") == ["1"]


def test_cli_with_lines_of_commands(proxy: Proxy) -> None:
    lines = b'SET "a key" "1 2"\nGET "a key"\nMSET cli:1 1 cli:2 2\nDEL "a key" cli:1 cli:2\n'
    assert cli(proxy, stdin=lines) == ["OK", "1 2", "OK", "3"]


def test_cli_on_a_terminal(proxy: Proxy) -> None:
    """Prompt, command, reply, as a person has it."""
    mine, its = pty.openpty()
    # Without a size it would ask the terminal where the cursor is.
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    command = [tool("redis-cli"), "-p", str(proxy.port)]
    environment = {**os.environ, "TERM": "xterm", "REDISCLI_HISTFILE": "/dev/null"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    screen = Screen(mine)
    try:
        screen.shows(f"{HOST}:{proxy.port}>")
        for line, answer in (
            ("set terminal 7", "\r\nOK"),
            ("hello 3", '"proto"'),
            ("mget terminal none", '1) "7"'),
            ("hello 2", '"proto"'),
            ("del terminal", "(integer) 1"),
            ("blpop terminal 0.1", "(nil)"),
        ):
            os.write(mine, line.encode() + b"\r")
            screen.shows(answer)
            screen.shows(f"{HOST}:{proxy.port}>")
        os.write(mine, b"quit\r")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(mine)


class Screen:
    """What a program shows on a terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = ""

    def shows(self, text: str) -> None:
        """Return when the text appears, after what was looked for before."""
        while text not in self._shown:
            ready, _, _ = select.select([self._terminal], [], [], PATIENCE)
            assert ready, f"no {text!r} in {self._shown!r}"
            self._shown += os.read(self._terminal, 65536).decode(errors="replace")
        self._shown = self._shown.partition(text)[2]


def test_cli_pipe(proxy: Proxy) -> None:
    """100,000 commands without a look at their replies."""
    sent = b"".join(pack([b"SET", b"pipe:%d" % (n % 5000), b"%d" % n]) for n in range(100_000))
    assert cli(proxy, "--pipe", stdin=sent)[-1] == "errors: 0, replies: 100000"
    with proxy.client() as client:
        keys = [f"pipe:{number}" for number in range(5000)]
        assert client.mget(keys) == [b"%d" % (95_000 + number) for number in range(5000)]
        assert client.delete(*keys) == 5000


def test_cli_latency(proxy: Proxy) -> None:
    (line,) = cli(proxy, "--raw", "-i", "0.3", "--latency")
    least, most, average, count = map(float, line.split())
    assert least <= average <= most
    assert count > 1


@pytest.mark.parametrize(
    "words",
    [("-P", "1"), ("-P", "16", "-3"), ("-P", "1", "--threads", "2")],
    ids=["default", "pipeline, RESP3", "threads"],
)
def test_benchmark(proxy: Proxy, words: tuple[str, ...]) -> None:
    """All of its own tests, over all slots."""
    load = ("-n", "1000", "-c", "10", "-r", "1000", "--csv")
    command = [tool("redis-benchmark"), "-p", str(proxy.port), *load, *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended
    assert "rror" not in ended.stdout
    lines = [line for line in ended.stdout.splitlines() if line.startswith('"')]
    assert len(lines) > 15


# -- redis-py --


def test_redis_py(proxy: Proxy) -> None:
    with redis.Redis(port=proxy.port, decode_responses=True) as client:
        assert client.set("py", "1", ex=100)
        assert client.get("py") == "1"
        assert client.hset("py:hash", mapping={"a": "1", "b": "2"}) == 2
        assert client.hgetall("py:hash") == {"a": "1", "b": "2"}
        assert client.zadd("py:zset", {"a": 1.5, "b": 2.0}) == 2
        assert client.zscore("py:zset", "a") == 1.5
        assert client.eval("return redis.call('GET', KEYS[1])", 1, "py") == "1"
        with client.pipeline(transaction=False) as pipe:
            assert pipe.get("py").ttl("py").hget("py:hash", "b").execute() == ["1", 100, "2"]
        info = client.client_info()
        assert info["lib-name"].startswith("redis-py")
        assert client.delete("py", "py:hash", "py:zset") == 3


def test_redis_py_from_many_threads(proxy: Proxy) -> None:
    wrong: list[object] = []
    with redis.Redis(port=proxy.port) as client:

        def work(name: str) -> None:
            for number in range(200):
                client.set(name, number)
                if (got := client.get(name)) != b"%d" % number:
                    wrong.append((name, number, got))
            client.delete(name)

        threads = [threading.Thread(target=work, args=(f"thread:{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("protocol", [None, 2, 3])
def test_redis_py_with_asyncio(proxy: Proxy, protocol: int | None) -> None:
    given: dict[str, Any] = {} if protocol is None else {"protocol": protocol}

    async def work() -> None:
        async with redis.asyncio.Redis(port=proxy.port, **given) as client:
            keys = [f"async:{number}" for number in range(100)]
            assert all(await asyncio.gather(*(client.set(key, key) for key in keys)))
            found = await asyncio.gather(*(client.get(key) for key in keys))
            assert found == [key.encode() for key in keys]
            async with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.append(key, "+")
                    pipe.get(key)
                replies = await pipe.execute()
            assert replies[1::2] == [f"{key}+".encode() for key in keys]
            assert await client.delete(*keys) == 100

    asyncio.run(work())


# -- Node.js --

IOREDIS = """
const Redis = require("ioredis");
const client = new Redis(PORT);
(async () => {
  const keys = [...Array(100).keys()].map((n) => "io:" + n);
  await Promise.all(keys.map((key) => client.set(key, key)));
  const pipe = client.pipeline();
  keys.forEach((key) => pipe.get(key));
  const piped = (await pipe.exec()).map(([error, value]) => error || value);
  const together = await client.mget(keys);
  const binary = Buffer.from([0, 13, 10, 255]);
  await client.set("io:binary", binary);
  await client.hset("io:hash", { a: "1", b: "2" });
  const done = await client.multi().set("io:n", "1").incr("io:n").exec();
  console.log(JSON.stringify({
    right: keys.every((key, n) => piped[n] === key && together[n] === key),
    binary: binary.equals(await client.getBuffer("io:binary")),
    hash: await client.hgetall("io:hash"),
    transaction: done.map(([error, value]) => error || value),
    deleted: await client.del("io:n", "io:binary", "io:hash", ...keys),
  }));
  await client.quit();
})();
"""

NODE_REDIS = """
const { createClient, RESP_TYPES } = require("redis");
(async () => {
  const client = await createClient({ url: "redis://127.0.0.1:PORT", RESP }).connect();
  const keys = [...Array(100).keys()].map((n) => "io:" + n);
  await Promise.all(keys.map((key) => client.set(key, key)));
  const piped = await Promise.all(keys.map((key) => client.get(key)));
  const together = await client.mGet(keys);
  const binary = Buffer.from([0, 13, 10, 255]);
  await client.set("io:binary", binary);
  const raw = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  await client.hSet("io:hash", { a: "1", b: "2" });
  const transaction = await client.multi().set("io:n", "1").incr("io:n").exec();
  console.log(JSON.stringify({
    right: keys.every((key, n) => piped[n] === key && together[n] === key),
    binary: binary.equals(await raw.get("io:binary")),
    hash: await client.hGetAll("io:hash"),
    transaction,
    deleted: await client.del(["io:n", "io:binary", "io:hash", ...keys]),
  }));
  await client.close();
})();
"""


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the Node.js clients in it."""
    tool("node")
    place = tmp_path_factory.mktemp("node")
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    ended = subprocess.run(
        [tool("npm"), "install", *quiet, *NODE_PACKAGES],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if ended.returncode:
        pytest.skip(f"npm could not install {', '.join(NODE_PACKAGES)}: {ended.stderr[-300:]}")
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize(
    "script",
    [IOREDIS, NODE_REDIS.replace("RESP }", "RESP: 2 }"), NODE_REDIS.replace("RESP }", "RESP: 3 }")],
    ids=["ioredis", "node-redis, RESP2", "node-redis, RESP3"],
)
def test_node_clients(proxy: Proxy, node_modules: Path, script: str) -> None:
    text = script.replace("PORT", str(proxy.port))
    command = [tool("node"), "-e", text]
    ended = subprocess.run(
        command, cwd=node_modules, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert told == {
        "right": True,
        "binary": True,
        "hash": {"a": "1", "b": "2"},
        "transaction": ["OK", 2],
        "deleted": 103,
    }
