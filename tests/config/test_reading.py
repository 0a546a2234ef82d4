"""From a file to a Config, or to everything that is wrong with it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rproxy.config import Address, Config, PinRule, Secret, UnixPath, check, load
from rproxy.errors import ConfigError

SEEDS = 'seeds = ["10.0.0.1:6379"]\n'
PASSWORD = "hunter2"


def problems(path: Path, text: str) -> list[str]:
    """What `check` says of a file with that text."""
    path.write_text(text)
    return check(path, {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rproxy.toml"


def test_a_file_s_options_arrive(file: Path) -> None:
    file.write_text(
        'listen = ["[::1]:7000", "unix:/run/r.sock"]\nseeds = ["a:1", "b:2"]\n'
        '[clients]\npassword = "hunter2"\nidle_timeout = "5m"\nmax_bulk = 1000\n'
        '[upstream]\nretry_delay = 0.1\n[upstream.tls]\nenabled = true\nca_file = "ca.pem"\n'
        '[log]\nlevel = "debug"\n'
    )
    config = load(file, environ={})
    assert config.listen == (Address("::1", 7000), UnixPath("/run/r.sock"))
    assert config.seeds == (Address("a", 1), Address("b", 2))
    assert config.clients.password == Secret("hunter2")
    assert (config.clients.idle_timeout, config.clients.max_bulk) == (300.0, 1000)
    assert config.upstream.retry_delay == 0.1
    assert (config.upstream.tls.enabled, config.upstream.tls.ca_file) == (True, "ca.pem")
    assert config.log.level == "debug"
    assert config.topology == Config().topology


def test_dotted_keys_and_inline_tables_are_toml_too(file: Path) -> None:
    file.write_text(SEEDS + 'log.level = "debug"\nclients = { max_clients = 5 }\n')
    config = load(file, environ={})
    assert (config.log.level, config.clients.max_clients) == ("debug", 5)


def test_what_is_given_goes_before_the_file(file: Path) -> None:
    file.write_text(SEEDS + "workers = 2\n")
    config = load(file, {"workers": 4, "listen": ["127.0.0.1:0"], "log.level": "error"}, {})
    assert (config.workers, config.log.level) == (4, "error")
    assert config.listen == (Address("127.0.0.1", 0),)


def test_no_file_is_needed() -> None:
    assert load(None, {"seeds": ["a:1"]}, {}) == Config(seeds=(Address("a", 1),))


def test_a_mistake_in_what_is_given_has_no_line(file: Path) -> None:
    file.write_text(SEEDS + "workers = 2\n")
    with pytest.raises(ConfigError, match=r"^workers: expected int >= 1$"):
        load(file, {"workers": 0}, {})


ENVIRON = {
    "RPROXY_PASSWORD": PASSWORD,
    "RPROXY_UPSTREAM_USERNAME": "alice",
    "RPROXY_UPSTREAM_PASSWORD": PASSWORD,
}


@pytest.mark.parametrize("text", ["", '[clients]\npassword = ""\n'])
def test_the_environment_fills_in_where_the_file_is_silent(file: Path, text: str) -> None:
    file.write_text(SEEDS + text)
    config = load(file, environ=ENVIRON)
    assert config.clients.password.reveal() == PASSWORD
    assert config.upstream.username == "alice"
    assert config.upstream.password.reveal() == PASSWORD


def test_the_file_goes_before_the_environment(file: Path) -> None:
    file.write_text(SEEDS + '[clients]\npassword = "x"\n[upstream]\nusername = "bob"\n')
    config = load(file, environ=ENVIRON)
    assert (config.clients.password.reveal(), config.upstream.username) == ("x", "bob")


def test_no_text_of_a_config_shows_a_password(file: Path) -> None:
    file.write_text(SEEDS)
    config = load(file, environ=ENVIRON)
    assert PASSWORD not in f"{config} {config!r}"


def test_a_config_reaches_another_process() -> None:
    config = load(None, {"seeds": ["a:1"], "clients.password": PASSWORD}, {})
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listn = []", "line 2: listn: unknown option; did you mean listen?"),
        ("[client]\na = 1", "line 2: client: unknown option; did you mean clients?"),
        (
            "[upstream]\nconect_timeout = 1",
            "line 3: upstream.conect_timeout: unknown option; "
            "did you mean upstream.connect_timeout?",
        ),
        (
            "[upstream]\nca_file = 'x'",
            "line 3: upstream.ca_file: unknown option; did you mean upstream.tls.ca_file?",
        ),
        ("zzz = 1", "line 2: zzz: unknown option"),
        ("upstream = 5", "line 2: upstream: expected a table"),
        ("[workers]\na = 1", "line 2: workers: expected int, got object"),
        ("allow_open = 1", "line 2: allow_open: expected bool, got int"),
        ("workers = true", "line 2: workers: expected int, got bool"),
        ("[topology]\nask_nodes = 0", "line 3: topology.ask_nodes: expected int >= 1"),
        (
            "[log]\nlevel = 'loud'",
            "line 3: log.level: expected one of debug, info, warning, error",
        ),
        (
            "drain_timeout = '5x'",
            "line 2: drain_timeout: unknown unit 'x': "
            'expected a duration such as "5s" or "250ms"',
        ),
        (
            "[clients]\noutput_limit = -1",
            "line 3: clients.output_limit: must be 0 or more, and finite",
        ),
        ("listen = 'x'", "line 2: listen: expected a list"),
        ("[pin]\nprefix = 'a'", "line 2: pin: expected a list"),
        ("pin = ['a']", "line 2: pin: expected [[pin]] tables with a prefix and perhaps a tag"),
        ("\n[[pin]]\nprefix = 5", 'line 3: pin: prefix and tag are texts: prefix = "arq:"'),
        ("[[pin]]\nprefx = 'a'", None),
        ("[[pin]]\nprefix = []", None),
        ("[[pin]]\nprefix = ''", None),
        ("[[pin]]\nprefix = 'a}b'", None),
        ("[[pin]]\nprefix = 'a'\n[[pin]]\nprefix = ['b', 'a']", "line 2: pin: 'a' is pinned twice"),
        (
            "listen = []",
            'line 2: listen: name at least one address, such as listen = ["127.0.0.1:6380"]',
        ),
        (
            "listen = ['h']",
            "line 2: listen: expected an address such as \"10.0.0.1:6379\", not 'h'",
        ),
        ("listen = ['[::1]:1', '::1:1']", "line 2: listen: [::1]:1 is named twice"),
        (
            "listen = ['0.0.0.0:1']",
            "line 2: listen: 0.0.0.0:1 can be reached from other machines and no password is "
            "asked: set clients.password (or RPROXY_PASSWORD), or allow_open = true",
        ),
        (
            "[upstream]\nusername = 'x'",
            "line 3: upstream.username: needs upstream.password (or RPROXY_UPSTREAM_PASSWORD)",
        ),
        (
            "[upstream.tls]\nca_file = 'x'",
            "line 2: upstream.tls.enabled: is false, but other options of upstream.tls are set: "
            "links would not be encrypted",
        ),
        (
            "[upstream.tls]\nenabled = true\nkey_file = 'x'",
            "line 4: upstream.tls.key_file: needs upstream.tls.cert_file",
        ),
        (
            "[upstream]\nretry_delay = '1s'",
            "line 3: upstream.retry_delay: 1s is more than upstream.retry_delay_max, "
            "which is 500ms",
        ),
        ("[upstream]\nheartbeat = 0", "line 3: upstream.heartbeat: must be more than 0"),
        ("[clients]\nunix_permissions = '999'", None),
    ],
)
def test_a_mistake_names_option_and_line(file: Path, text: str, expected: str | None) -> None:
    found = problems(file, SEEDS + text)
    assert len(found) == 1
    assert expected is None or found == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "listen = ['0.0.0.0:1']\nallow_open = true",
        "listen = ['0.0.0.0:1']\n[clients]\npassword = 'x'",
        "listen = ['127.0.0.1:1', 'unix:/x', 'localhost:2', '127.0.0.1:0', '127.0.0.1:0']",
    ],
)
def test_what_may_be_listened_on(file: Path, text: str) -> None:
    assert problems(file, SEEDS + text) == []


def test_every_mistake_is_told_in_the_order_of_the_file(file: Path) -> None:
    found = problems(file, "workers = 0\n[log]\nlevel = 1\n[clients]\nbacklog = 'x'\n")
    assert [problem.split(":")[0] for problem in found] == ["seeds", "line 1", "line 3", "line 5"]


@pytest.mark.parametrize(
    "text",
    [
        f"[clients]\npassword = ['{PASSWORD}']",
        f"[clients]\npasword = '{PASSWORD}'",
        f"[upstream]\npassword = {{ a = '{PASSWORD}' }}",
        f"[upstream]\npassword = '{PASSWORD}",
    ],
)
def test_a_mistake_with_a_password_does_not_show_it(file: Path, text: str) -> None:
    found = problems(file, SEEDS + text)
    assert found
    assert PASSWORD not in "\n".join(found)


def test_files_that_cannot_be_read(file: Path) -> None:
    assert check(file, {}) == [f"{file}: No such file or directory"]
    file.write_bytes(b"\xff")
    assert check(file, {}) == [f"{file}: not a text in UTF-8"]
    file.write_text("workers = 1\nlisten = oops\n")
    (problem,) = check(file, {})
    assert "line 2" in problem


def test_load_raises_all_mistakes_at_once(file: Path) -> None:
    file.write_text("workers = 0\n")
    with pytest.raises(ConfigError, match=r"^seeds: name .*\nline 1: workers: expected int >= 1$"):
        load(file, environ={})


def test_pins(file: Path) -> None:
    file.write_text(
        SEEDS
        + """
[[pin]]
prefix = "arq:"
[[pin]]
prefix = ["celery", ""]
tag = "c"
"""
    )
    assert load(file, {}, {}).pin == (
        PinRule((b"arq:",), b"arq:"),
        PinRule((b"celery", b""), b"c"),
    )
