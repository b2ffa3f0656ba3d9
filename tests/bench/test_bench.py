"""The pure parts of the benchmark: reading wrk, choosing servers, medians, ratios, tables, the documentation page."""

from __future__ import annotations

import http.server
import os
import threading
import time
import tomllib
from collections.abc import Iterator

import pytest

from bench.harness import processes, report, wrk
from bench.harness.catalogue import (
    APPS,
    BENCH,
    BROWSER_HEADERS,
    WORKLOADS,
    Server,
    Workload,
    load_catalogue,
    parse_catalogue,
    select_workloads,
    workload,
)
from bench.harness.errors import BenchError
from bench.harness.idle import Idle, result_table
from bench.harness.main import parser
from bench.harness.once import middleware_row, server_row, sqlite_row
from bench.harness.report import Comparison, Sample, Spread
from bench.once_servers import Round, ratios

CLEAN = """\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   258.47us  108.45us   2.21ms   86.60%
    Req/Sec   145.85k     4.60k  154.25k    80.00%
  289971 requests in 2.01s, 1.40GB read
Requests/sec: 144264.18
Transfer/sec:      1.39GB
"""
FAILING = """\
  7 requests in 1.50m, 1.21KB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 5
Requests/sec:      0.08
Transfer/sec:      13.77B
"""


def test_wrk_report_without_failures() -> None:
    assert wrk.parse(CLEAN) == wrk.WrkResult(requests=289971, seconds=2.01, per_second=144264.18)


def test_wrk_report_with_failures_and_minutes() -> None:
    assert wrk.parse(FAILING) == wrk.WrkResult(7, 90.0, 0.08, bad_responses=5, socket_errors=4321)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:8000 Connection refused", CLEAN[:200]])
def test_anything_else_is_no_report(output: str) -> None:
    with pytest.raises(BenchError):
        wrk.parse(output)


def test_wrk_arguments_carry_headers_and_script() -> None:
    plain = wrk.arguments(workload("plain"), port=8123, seconds=2)
    assert plain == ["wrk", "-t1", "-c64", "-d2s", "http://127.0.0.1:8123/"]
    headers = wrk.arguments(workload("headers"), port=1, seconds=1)
    assert headers.count("-H") == 11
    assert "Accept-Language: en-US,en;q=0.9" in headers
    echo = wrk.arguments(workload("echo"), port=1, seconds=1)
    assert os.path.exists(echo[echo.index("-s") + 1])


def test_workloads_name_real_applications_and_scripts() -> None:
    assert [w.name for w in WORKLOADS] == ["plain", "headers", "echo", "stream", "sleep", "fastapi"]
    assert len(BROWSER_HEADERS) == len({name for name, _ in BROWSER_HEADERS}) == 11
    for each in WORKLOADS:
        assert (APPS / f"{each.app}.py").is_file()
        assert not each.script or (BENCH / "wrk" / each.script).is_file()
    assert len(workload("echo").body) == 10 * 1024
    assert len(workload("stream").expected) == 6400


def test_selecting_keeps_the_table_order_and_refuses_unknown_names() -> None:
    assert [w.name for w in select_workloads(["sleep", "plain"])] == ["plain", "sleep"]
    assert len(select_workloads(None)) == len(WORKLOADS)
    with pytest.raises(BenchError, match="nosuch"):
        select_workloads(["plain", "nosuch"])


def test_peers_file_is_valid_and_compares_the_five_peers() -> None:
    catalogue = load_catalogue()
    default = catalogue.select(None)
    assert {s.name for s in default if s.role == "peer"} == {"uvicorn", "granian", "peregrine", "h2corn", "hypercorn"}
    assert [s.name for s in default if s.role == "ours"] == ["lastcall"]
    assert "fastapi" in catalogue.common_install
    for server in catalogue.servers:
        argv = server.argv(app="plain", port=4321, extra=("--last",))
        assert argv[-1] == "--last"
        assert any("4321" in word for word in argv)
        assert not any("{" in word for word in argv)
        assert str(BENCH.parent) not in server.shown
        assert server.role == "limit" or server.logging != server.quiet
    with pytest.raises(BenchError, match="nosuch"):
        catalogue.select(["lastcall", "nosuch"])


def test_a_variant_runs_only_when_it_is_named() -> None:
    catalogue = load_catalogue()
    assert "lastcall-uvloop" not in {s.name for s in catalogue.select(None)}
    assert [s.name for s in catalogue.select(["lastcall-uvloop"])] == ["lastcall-uvloop"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('name = "a"\nrole = "peer"\ncommand = ["x"]\nworkers = 2', "server a: .*workers"),
        ('name = "a"\nrole = "rival"\ncommand = ["x"]', "unknown role 'rival'"),
        ('role = "peer"\ncommand = ["x"]', "server \\?: .*name"),
    ],
)
def test_a_wrong_entry_is_named(entry: str, message: str) -> None:
    data = tomllib.loads(f"[common]\ninstall = []\ndistributions = []\n[[server]]\n{entry}\n")
    with pytest.raises(BenchError, match=message):
        parse_catalogue(data)


def test_spread_is_median_and_extremes() -> None:
    assert Spread.of([9.0, 7.0, 8.0]) == Spread(8.0, 7.0, 9.0)
    assert Spread.of([8.0, 7.0]) == Spread(7.5, 7.0, 8.0)
    assert Spread(7.625, 7.5, 12.34).text() == "7.62 (7.50-12.3)"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.493, "0.49"), (7.618, "7.62"), (84.13, "84.1"), (690.4, "690"), (-1.5, "-1.50")]
)
def test_three_digits(value: float, text: str) -> None:
    assert report.digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(131_442, "131\u202f000"), (57_519, "57\u202f500"), (999.6, "1\u202f000"), (82, "82"), (0, "0")]
)
def test_rates_are_rounded(value: float, text: str) -> None:
    assert report.thousands(value) == text


def samples(server: str, figures: list[float], workload: str = "plain") -> list[Sample]:
    return [Sample(server, workload, number, cpu, 1e6 / cpu) for number, cpu in enumerate(figures)]


def test_comparison_takes_medians_and_pairs_rounds() -> None:
    # Round 1 was slow for both: the medians' ratio and the rounds' ratios do not see it.
    both = samples("ours", [8.0, 16.0, 8.0]) + samples("peer", [10.0, 20.0, 12.0])
    assert report.compare(both, "ours", "peer", "plain") == Comparison("peer", 1.5, 1.25, 1.5)


def test_comparison_needs_a_shared_round() -> None:
    both = [*samples("ours", [8.0]), Sample("peer", "plain", 1, 10.0, 1.0)]
    assert report.compare(both, "ours", "peer", "plain") is None
    assert report.compare(both, "ours", "absent", "plain") is None


@pytest.mark.parametrize(
    ("low", "ratio", "high", "verdict"),
    [
        (1.16, 1.2, 1.3, "met"),
        (1.15, 1.2, 1.3, "met"),
        (1.0, 1.1, 1.14, "missed"),
        (1.1, 1.2, 1.3, "open"),
        (1.1, 1.14, 1.15, "open"),
    ],
)
def test_verdict_is_open_when_the_rounds_disagree(low: float, ratio: float, high: float, verdict: str) -> None:
    assert Comparison("peer", ratio, low, high).verdict(1.15) == verdict


def test_best_peer_is_the_one_with_the_least_median() -> None:
    found = samples("a", [10.0, 10.0, 1.0]) + samples("b", [9.0, 9.0, 99.0]) + samples("ours", [1.0])
    assert report.best_peer(found, ["a", "b", "absent"], "plain") == "b"
    assert report.best_peer(found, ["a", "b"], "echo") is None


def a_server(name: str, role: str) -> Server:
    data = {"common": {"install": [], "distributions": []}, "server": [{"name": name, "role": role, "command": ["x"]}]}
    return parse_catalogue(data).servers[0]


def test_load_table() -> None:
    roles = {"c": "limit", "ours": "ours", "good": "peer", "bad": "peer", "other": "variant", "absent": "peer"}
    servers = [a_server(name, role) for name, role in roles.items()]
    found = [
        *samples("c", [5.0, 5.0]),
        *samples("ours", [8.0, 8.0]),
        *samples("good", [10.0, 10.0]),
        *samples("bad", [20.0, 20.0]),
        *samples("other", [1.0, 1.0]),  # a variant is never the best peer
        *samples("bad", [4.0, 4.0], "echo"),
    ]
    workloads = [Workload("plain", "plain", b"", 1.15), Workload("echo", "echo", b"", 1.1)]
    lines = report.load_table(found, servers, workloads).splitlines()
    assert lines == [
        "| server CPU in µs per request: median (min-max); requests/s | plain | echo |",
        "| --- | ---: | ---: |",
        "| c | 5.00 (5.00-5.00); 200\u202f000 | - |",
        "| ours | 8.00 (8.00-8.00); 125\u202f000 | - |",
        "| good | 10.0 (10.0-10.0); 100\u202f000 | - |",
        "| bad | 20.0 (20.0-20.0); 50\u202f000 | 4.00 (4.00-4.00); 250\u202f000 |",
        "| other | 1.00 (1.00-1.00); 1\u202f000\u202f000 | - |",
        "| **best peer ÷ ours, CPU** | 1.25 (1.25-1.25) good; target 1.15: met | - |",
        "| ours ÷ that peer, requests/s | 1.25 | - |",
        "| ours ÷ C loop, CPU | 1.60 (1.60-1.60); at most 1.5: missed | - |",
    ]


def test_load_table_without_lastcall_compares_nothing() -> None:
    servers = [a_server("ours", "ours"), a_server("good", "peer")]
    text = report.load_table(samples("good", [10.0]), servers, [workload("plain")])
    assert "÷" not in text
    assert "| good | 10.0" in text


def test_idle_table_gives_memory_and_share_of_a_core() -> None:
    text = result_table([Idle("ours", "fresh", 10_000, 1536.0, 25.0, 10)], {"ours": "lastcall"})
    assert text.splitlines()[2] == "| lastcall | never sent anything | 1.50 KiB | 25.0 ms in 10 s (0.25 %) |"


def test_rows_of_once_say_whether_the_target_is_met() -> None:
    assert sqlite_row("full", [9000.0, 12_000.0, 30_000.0])[1:] == [
        "12\u202f000 (9\u202f000-30\u202f000)",
        "-",
        "-",
        "at least 10\u202f000/s: met",
    ]
    assert sqlite_row("full", [9000.0])[-1] == "at least 10\u202f000/s: missed"
    row = server_row("Redis", 16, [Round(9000.0, 1.0)], [Round(10_000.0, 1.0)], (0.79, 0.7, 0.9), 0.8)
    assert row[0] == "Redis, 16 at once"
    assert row[2:] == ["10\u202f000", "0.79 (0.70-0.90)", "at least 0.8: missed"]
    assert server_row("Redis", 1, [Round(1.0, 1.0)], [Round(1.0, 1.0)], (0.8, 0.7, 0.9), 0.8)[-1] == "at least 0.8: met"
    assert middleware_row("GET", [41.0], [40.0], 1.0)[2:] == ["1.00", "2.5%", "less than 3%: met"]
    assert middleware_row("GET", [42.0], [40.0], 2.0)[-1] == "less than 3%: missed"


def test_ratios_of_once_pair_the_rounds() -> None:
    ours, theirs = ([Round(1.0, cpu) for cpu in found] for found in ([10.0, 20.0, 10.0], [8.0, 16.0, 10.0]))
    assert ratios(ours, theirs) == (0.8, 0.8, 1.0)


def test_versions_tell_when_applications_differ() -> None:
    same = {"a": {"a": "1", "uvloop": "2", "fastapi": "3"}, "b": {"b-server": "4", "fastapi": "3"}, "c": {}}
    assert report.version_lines(same, ["fastapi"]) == [
        "Servers: a 1, uvloop 2; b-server 4.",
        "Application: fastapi 3.",
    ]
    different = {"a": {"a": "1", "fastapi": "3"}, "b": {"b": "1", "fastapi": "4"}}
    assert "--refresh" in report.version_lines(different, ["fastapi"])[-1]


def test_replacing_a_section_leaves_the_rest_of_the_page() -> None:
    page = "# Speed\n\n<!-- bench:load -->\nold\n<!-- /bench:load -->\n\n<!-- bench:idle --><!-- /bench:idle -->\nend\n"
    once = report.replace_section(page, "load", "| new |\n")
    assert once.startswith("# Speed\n\n<!-- bench:load -->\n\n| new |\n\n<!-- /bench:load -->\n\n<!-- bench:idle -->")
    assert once.endswith("end\n")
    assert report.replace_section(once, "load", "| new |") == once


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- bench:load -->",
        "<!-- /bench:load --><!-- bench:load -->",
        "<!-- bench:load --><!-- /bench:load -->" * 2,
    ],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(BenchError, match="bench:load"):
        report.replace_section(page, "load", "text")


def test_descendants_are_found_at_any_depth() -> None:
    parent_of = {1: 0, 10: 1, 11: 10, 12: 11, 13: 11, 20: 1}
    assert sorted(processes.descendants(10, parent_of)) == [10, 11, 12, 13]
    assert processes.descendants(20, parent_of) == [20]


def test_parents_knows_this_process() -> None:
    assert processes.parents()[os.getpid()] == os.getppid()


def test_cpu_clock_of_a_process_counts_threads_that_have_ended() -> None:
    def work() -> None:
        end = time.thread_time_ns() + 20_000_000
        while time.thread_time_ns() < end:
            pass

    before = processes.cpu_ns([os.getpid()])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert processes.cpu_ns([os.getpid()]) - before >= 20_000_000


def test_cpu_clock_of_a_missing_process_is_an_error() -> None:
    with pytest.raises(BenchError):
        processes.cpu_ns([2**22 + 1])  # above the kernel's greatest pid


def test_pss_of_this_process_is_plausible() -> None:
    assert 1 << 20 < processes.pss_bytes([os.getpid()]) < 1 << 34


class Answers(http.server.BaseHTTPRequestHandler):
    """/: what the class attributes say."""

    protocol_version = "HTTP/1.1"
    status = 200
    body = b"Hello, World!"
    closes = False

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        if self.closes:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[int]:
    """A real server on a free port that answers as the test's parameters say."""
    handler = type("Handler", (Answers,), request.param)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answering", [{}], indirect=True)
def test_a_right_answer_passes_the_check(answering: int) -> None:
    processes.verify(answering, workload("plain"))


@pytest.mark.parametrize(
    ("answering", "message"),
    [
        ({"status": 404}, "status 404"),
        ({"body": b"Hello, world!"}, "wrong body"),
        ({"body": b""}, "wrong body"),
        ({"closes": True}, "NotConnected"),
    ],
    indirect=["answering"],
)
def test_a_wrong_answer_or_a_lost_connection_fails_the_check(answering: int, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        processes.verify(answering, workload("plain"))


def test_command_line_defaults() -> None:
    options = parser().parse_args([])
    assert (options.measurement, options.rounds, options.servers) == ("load", 5, None)
    assert parser().parse_args(["idle", "--servers", "a, b"]).servers == ["a", "b"]


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--seconds", "0.5"], ["nosuch"]])
def test_command_line_refuses_nonsense(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(argv)
    assert "error" in capsys.readouterr().err
