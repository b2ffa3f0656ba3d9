"""What reads the files of others: known values, and that nothing makes it crash."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.base.options import ServerOptions
from lastcall.server.parts import RESERVED_DESCRIPTORS
from lastcall_doctor import facts_manifest, facts_proxy, facts_unit, rules_host
from lastcall_doctor.facts import Deployment, Launch, Proxy, UnreadableError
from lastcall_doctor.facts_proxy import parse_nginx, read_proxy, routes_for
from lastcall_doctor.facts_server import server_elsewhere
from lastcall_doctor.launch import SHELLS, launch_of
from lastcall_doctor.spans import go_duration, haproxy_time, nginx_time, systemd_span

T = TypeVar("T")

# -- times ------------------------------------------------------------------------------------------------------------

SYSTEMD = {
    # As `systemd-analyze timespan` reads them.
    "90": 90,
    "1min 30s": 90,
    "1min30": 90,
    "2h": 7200,
    "5 minutes 0.5 s": 300.5,
    "1500ms": 1.5,
    "1.5m": 90,
    "2 days 3 hr": 183600,
    "1M": 2629800,
    "infinity": math.inf,
}


@pytest.mark.parametrize(("text", "seconds"), SYSTEMD.items())
def test_systemd_spans(text: str, seconds: float) -> None:
    assert systemd_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "soon", "-1", "5 parsecs", "s5", "1e3", "1,5s", "inf"])
def test_what_is_no_systemd_span(text: str) -> None:
    with pytest.raises(ValueError, match="time span"):
        systemd_span(text)


UNITS = [("h", 3600), ("min", 60), ("s", 1), ("ms", 0.001)]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(UNITS)), min_size=1), st.sampled_from(["", " ", "  "]))
def test_a_span_is_the_sum_of_its_parts(parts: list[tuple[int, tuple[str, float]]], space: str) -> None:
    text = space.join(f"{number}{space}{unit}" for number, (unit, _) in parts)
    assert systemd_span(text) == pytest.approx(sum(number * factor for number, (_, factor) in parts))


@pytest.mark.parametrize(
    ("read", "text", "seconds"),
    [
        (go_duration, "1m30s", 90),
        (go_duration, "1h5m30s20ms", 3930.02),
        (go_duration, "0.5s", 0.5),
        (nginx_time, "60", 60),
        (nginx_time, "1h 30m", 5400),
        (nginx_time, "75ms", 0.075),
        (nginx_time, "1d", 86400),
        (haproxy_time, "5000", 5),
        (haproxy_time, "1h", 3600),
    ],
)
def test_other_times(read: object, text: str, seconds: float) -> None:
    assert callable(read)
    assert read(text) == pytest.approx(seconds)


@given(st.text(), st.sampled_from([systemd_span, go_duration, nginx_time, haproxy_time]))
def test_any_text_is_a_time_or_a_value_error(text: str, read: object) -> None:
    assert callable(read)
    with contextlib.suppress(ValueError):
        assert read(text) >= 0


# -- units ------------------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        "[Service]",
        "[Unit]",
        "# a comment",
        "; another",
        "",
        "TimeoutStopSec=1min 30s",
        "TimeoutStopSec=",
        "ExecStart=lastcall app:app \\",
        " --port 1",
        "ExecStart=",
        "ExecStart=@-/bin/sh sh -c 'exec lastcall app:app'",
        "Environment=A=1 'B=2 3'",
        "KillSignal=15",
        "LimitNOFILE=1K:infinity",
    ]
)


@given(st.lists(LINES | st.text(max_size=20)))
def test_a_unit_is_read_or_refused_with_its_line(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = place_or_line(lambda: facts_unit.deployment_of(facts_unit.parse(text, "x.service"), "x.service"))
    assert found.timer > 0 if isinstance(found, Deployment) else found in range(1, len(text.split("\n")) + 1)


def place_or_line(read: Callable[[], T]) -> T | int | None:
    """What ``read`` returns, or the line that it refuses."""
    try:
        return read()
    except UnreadableError as error:
        return error.line


@given(st.lists(LINES))
def test_only_the_service_section_counts(lines: list[str]) -> None:
    others = [line for line in lines if not line.startswith(("[", " "))]
    assert facts_unit.parse("\n".join(["[Install]", *others]), "x") == {}


@pytest.mark.parametrize(
    ("text", "timer"),
    [("", 90), ("TimeoutStopSec=0", math.inf), ("TimeoutSec=20\nTimeoutStopSec=1m", 60), ("TimeoutStopSec=", 90)],
)
def test_the_kill_timer_of_a_unit(text: str, timer: float) -> None:
    assert facts_unit.deployment_of(facts_unit.parse(f"[Service]\n{text}\n", "x"), "x").timer == timer


@pytest.mark.parametrize(
    ("word", "name"), [("15", "SIGTERM"), ("TERM", "SIGTERM"), ("sigint", "SIGINT"), ("2", "SIGINT")]
)
def test_signals_have_many_names(word: str, name: str) -> None:
    section = facts_unit.parse(f"[Service]\nKillSignal={word}\n", "x")
    assert facts_unit.deployment_of(section, "x").signal == name


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lastcall", "a:b", "--port", "1"], ("a:b", "--port", "1")),
        (["/venv/bin/python", "-m", "lastcall", "a:b"], ("a:b",)),
        (["tini", "--", "uv", "run", "lastcall", "a:b"], ("a:b",)),
        (["sh", "-c", "cd /srv; exec lastcall a:b"], ("a:b",)),
        (["bash", "-euo", "pipefail", "-c", "migrate && lastcall a:b || true"], ("a:b",)),
        (["lastcall", "a:b", "--port", "$(PORT)", "$X"], ("a:b", "--port", "80", "$X")),
        (["lastcall", "doctor"], None),
        (["waitress-serve", "a:b"], None),
        (["sh", "-c", "lastcall 'a:b"], None),
        (["docker", "run", "--name", "lastcall", "x"], None),
        ([], None),
    ],
)
def test_lastcall_is_found_in_a_command(words: list[str], expected: tuple[str, ...] | None) -> None:
    found = launch_of(words, {"PORT": "80"})
    assert (found and found.words) == expected
    assert found is None or found.server == "lastcall"


@pytest.mark.parametrize("name", ["daphne", "granian", "gunicorn", "h2corn", "hypercorn", "uvicorn"])
def test_other_servers_are_found_in_a_command(name: str) -> None:
    for words in ([f"/venv/bin/{name}", "a:b"], ["python", "-m", name, "a:b"], ["sh", "-c", f"exec {name} a:b"]):
        found = launch_of(words, {})
        assert found is not None
        assert (found.server, found.words) == (name, ("a:b",))


@pytest.mark.parametrize(
    ("script", "execs"),
    [
        ("exec lastcall a:b", True),
        ("cd /x && exec env A=1 lastcall a:b", True),
        ("lastcall a:b", False),
        ("exec 2>&1; lastcall a:b", False),
        ("a\nlastcall a:b\nb", False),
    ],
)
@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_whether_a_shell_hands_over(script: str, execs: bool, shell: str) -> None:
    found = launch_of([f"/bin/{shell}", "-c", script], {})
    assert found is not None
    assert found.shell is not None
    assert (found.shell.name, found.shell.execs) == (shell, execs)


@pytest.mark.parametrize(
    ("words", "env", "debug"),
    [
        (["python", "-X", "dev", "-m", "lastcall", "a:b"], {}, "-X dev"),
        (["python", "-Xdev", "-m", "lastcall", "a:b"], {}, "-X dev"),
        (["env", "PYTHONDEVMODE=1", "lastcall", "a:b"], {}, "PYTHONDEVMODE=1"),
        (["lastcall", "a:b"], {"PYTHONMALLOC": "pymalloc_debug"}, "PYTHONMALLOC=debug"),
        (["lastcall", "a:b", "-X", "dev"], {"PYTHONDEVMODE": ""}, ""),
    ],
)
def test_debug_modes_are_found(words: list[str], env: dict[str, str], debug: str) -> None:
    found = launch_of(words, env)
    assert found is not None
    assert found.debug == debug


@given(st.lists(st.text(max_size=12) | st.sampled_from(["sh", "-c", "lastcall", "-m", "a && lastcall x", "exec"])))
def test_any_words_are_a_command_or_none(words: list[str]) -> None:
    assert isinstance(launch_of(words, {"A": "1"}), Launch | None)


# -- manifests --------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just("lastcall a:b")
POD_KEYS = ["containers", "command", "env", "lifecycle", "name", "readinessProbe", "terminationGracePeriodSeconds"]
OTHER_KEYS = ["app", "environment", "httpGet", "items", "preStop", "services", "sleep", "spec", "stop_grace_period"]
KEYS = st.sampled_from([*POD_KEYS, *OTHER_KEYS, "seconds", "template"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
KINDS = st.sampled_from(["Pod", "Deployment", "List", "CronJob", "Service", "ConfigMap"])


@settings(max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=5), KINDS | st.none())
def test_any_manifest_is_read_or_refused_with_its_line(value: dict[str, object], kind: str | None) -> None:
    import yaml  # noqa: PLC0415

    text = yaml.safe_dump({**value, **({"kind": kind} if kind else {})})
    found = place_or_line(lambda: facts_manifest.choose(facts_manifest.candidates(text, "x.yaml")))
    assert found is not None
    assert isinstance(found, int) or all(deployment.timer >= 0 for deployment in found)


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>?,#'\"% \n\t<<0")), max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with contextlib.suppress(UnreadableError):
        facts_manifest.candidates(text, "x.yaml")


def test_aliases_and_merges_are_followed() -> None:
    text = """\
x-base: &base { command: "lastcall a:b --host ::", stop_grace_period: 40s }
services:
  one: { <<: *base, stop_grace_period: 1m }
  two: { stop_grace_period: 2m, <<: *base }
  three: *base
"""
    deployments = facts_manifest.choose(facts_manifest.candidates(text, "x.yaml"))
    assert [deployment.timer for deployment in deployments] == [60, 120, 40]


def test_aliases_do_not_multiply() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    assert facts_manifest.candidates("\n".join(lines), "x.yaml") == []


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "StatefulSet", "CronJob"])
def test_pods_are_found_in_what_makes_them(kind: str) -> None:
    pod = "{terminationGracePeriodSeconds: 7, containers: [{name: a, args: [lastcall, 'a:b']}]}"
    nested = {
        "Pod": pod,
        "CronJob": f"{{jobTemplate: {{spec: {{template: {{spec: {pod}}}}}}}}}",
    }.get(kind, f"{{template: {{spec: {pod}}}}}")
    text = f"kind: List\nitems:\n- {{kind: {kind}, metadata: {{name: n}}, spec: {nested}}}\n"
    (deployment,) = facts_manifest.choose(facts_manifest.candidates(text, "x"))
    assert (deployment.timer, deployment.where, deployment.public) == (
        7,
        f"x: {kind} n, container a",
        kind != "CronJob",
    )


# -- proxies ----------------------------------------------------------------------------------------------------------

SIGNS = ["{", "}", ";", "/", "~", "\\d", "${x}", "'c'", '"a b"', "\n", "#x\n", "8", "60s", "off"]
DIRECTIVES = ["content_by_lua_block", "keepalive", "location", "proxy_buffering", "proxy_pass", "proxy_read_timeout"]
NGINX_WORDS = st.sampled_from([*SIGNS, *DIRECTIVES, "http://a", "server", "upstream"])


@given(st.lists(NGINX_WORDS | st.text(max_size=5)), st.sampled_from([" ", "\n"]))
def test_any_text_is_a_configuration_or_refused(words: list[str], space: str) -> None:
    text = space.join(words)
    with contextlib.suppress(UnreadableError):
        facts_proxy.nginx_routes(parse_nginx(text, "x.conf"), "x.conf")


NGINX = """\
http {
    proxy_buffering off;
    proxy_read_timeout 5m;
    upstream app { server a; keepalive 8; keepalive_timeout 30s; }
    server {
        proxy_set_header Connection "";
        proxy_http_version 1.1;
        location / { proxy_pass http://app/; }
        location = /exact { proxy_buffering on; proxy_pass http://app; }
        location ^~ /static/ { proxy_pass http://app; }
        location ~* \\.(js|css)$ { proxy_pass http://app; }
        location /api/ { proxy_set_header Host $host; proxy_pass http://app; }
        location /lua { content_by_lua_block { if x then y = "}" .. '{' end } }
    }
    server { location /other { proxy_pass http://10.0.0.1; } }
}
"""


def nginx(text: str = NGINX) -> Proxy:
    return Proxy("nginx", "x", facts_proxy.nginx_routes(parse_nginx(text, "x"), "x"))


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/", ["/"]),
        ("/exact", ["/exact"]),
        ("/exactly", ["/"]),
        ("/api/x?y.js", ["/api/"]),
        ("/api/x.JS", ["\\.(js|css)$"]),
        ("/static/x.js", ["/static/"]),
        ("/other/y", ["/", "/other"]),
    ],
)
def test_a_location_is_chosen_as_nginx_does(path: str, chosen: list[str]) -> None:
    assert [route.match for route in routes_for(nginx(), path)] == chosen


def test_directives_are_inherited_as_in_nginx() -> None:
    routes = {route.match: route for route in nginx().routes}
    assert {route.read_timeout for route in routes.values()} == {300}
    assert [match for match, route in routes.items() if route.buffering] == ["/exact"]
    assert routes["/"].keep_alive == 30
    assert routes["/other"].keep_alive is None
    assert routes["/"].reuses
    assert not routes["/api/"].reuses, "a location that sets one header inherits none"


def test_haproxy_is_told_from_nginx(tmp_path: Path) -> None:
    path = tmp_path / "x.cfg"
    path.write_text(
        "# x\nglobal\n  log x\ndefaults\n  timeout server 30s\nfrontend f\nbackend a\nlisten b\n  timeout server 250\n"
    )
    found = read_proxy(path)
    assert found.kind == "haproxy"
    assert [(route.where.rpartition(": ")[2], route.read_timeout) for route in found.routes] == [
        ("backend a", 30),
        ("listen b", 0.25),
    ]


# -- numbers that are somebody else's ---------------------------------------------------------------------------------


def test_the_numbers_of_the_server_are_the_servers() -> None:
    assert rules_host.RESERVED == RESERVED_DESCRIPTORS
    server = server_elsewhere("x", "a:b", {}, {})
    options = ServerOptions()
    assert server.worst_case == 28
    assert server.keep_alive == options.http.timeout_keep_alive
    assert (server.disconnect, server.backlog) == (options.stop.disconnect, options.net.backlog)
