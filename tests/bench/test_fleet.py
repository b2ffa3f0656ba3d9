"""`fleet`: the clients against real servers, when a roll is complete, what the tables say of their figures."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from bench.harness import processes
from bench.harness.catalogue import load_catalogue, parse_catalogue
from bench.harness.errors import BenchError
from bench.harness.fleet import roll, tables
from bench.harness.fleet.checkout import Checkout
from bench.harness.fleet.clients import Answer, Clients
from bench.harness.fleet.crash import Crash, started
from bench.harness.fleet.measurement import PARTS, QUICK, SERVERS, Found, sections
from bench.harness.fleet.parent import Idle, status
from bench.harness.fleet.reload import Reloaded
from bench.harness.fleet.roll import Rolled, complete_at, covered
from bench.harness.main import parser
from bench.harness.report import Spread
from bench.harness.session import Session

LABELS = {name: name.capitalize() for name in ("ours", "uvicorn", "granian", "gunicorn", "h2corn")}

P = ParamSpec("P")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def answer(version: str, pid: int, answered: float, imported: tuple[float, float] = (0.0, 0.0)) -> Answer:
    return Answer(answered - 0.01, answered, version, pid, *imported)


def noted(*answers: Answer) -> tuple[dict[int, Answer], dict[str, float]]:
    first: dict[int, Answer] = {}
    last: dict[str, float] = {}
    for one in answers:
        first.setdefault(one.pid, one)
        last[one.version] = one.answered
    return first, last


def test_a_roll_is_complete_when_all_new_workers_have_answered_and_the_old_ones_are_silent() -> None:
    old, new = answer("0", 1, 10.0), [answer("1", 3, 10.5), answer("1", 3, 11.0), answer("1", 4, 12.0)]
    assert complete_at(*noted(old, *new[:2]), "1", 2) is None
    assert complete_at(*noted(old, *new), "1", 2) == 12.0
    assert complete_at(*noted(*new, answer("0", 2, 13.0)), "1", 2) == 13.0
    assert complete_at(*noted(*new), "1", 2) == 12.0


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([], 0.0),
        ([(1.0, 1.3), (2.0, 2.3)], 0.6),  # one after the other
        ([(1.0, 1.3), (1.0, 1.3)], 0.3),  # at the same time
        ([(1.2, 1.5), (1.0, 1.3)], 0.5),
        ([(1.0, 2.0), (1.2, 1.3), (1.9, 2.1)], 1.1),
    ],
)
def test_imports_at_the_same_time_count_once(intervals: list[tuple[float, float]], seconds: float) -> None:
    assert covered(intervals) == pytest.approx(seconds)


def test_a_checkout_differs_in_its_version_alone() -> None:
    with Checkout("versioned") as checkout:
        file = checkout.directory / "versioned.py"
        before = file.read_text()
        checkout.save("17")
        assert file.read_text() == before.replace('VERSION = "0"', 'VERSION = "17"') != before
    assert not file.exists()


def test_the_start_of_a_process_is_told_by_the_monotonic_clock() -> None:
    assert 0 < time.monotonic() - started(os.getpid()) < 24 * 3600
    assert status(os.getpid(), "VmRSS") > 1000
    with pytest.raises(BenchError, match="NoSuch"):
        status(os.getpid(), "NoSuch")


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[Clients]:
    """Clients of a real server on a free port, each of whose connections `serve` has."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with Clients(server.sockets[0].getsockname()[1]) as clients:
        yield clients
    server.close()


def response(version: str = "0", *, fields: str = "", status_line: str = "200 OK") -> bytes:
    body = f"{version} {os.getpid()} 1.0 2.0"
    return f"HTTP/1.1 {status_line}\r\nContent-Length: {len(body)}\r\n{fields}\r\n{body}".encode()


def answers(data: bytes, *, times: int = 1_000_000) -> Serve:
    """A server that sends `data` for each of so many requests of a connection, reads one more, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number in range(times + 1):
                await reader.readuntil(b"\r\n\r\n")
                if number < times:
                    writer.write(data)
        except EOFError:
            pass
        finally:
            writer.close()

    return serve


@in_a_loop
async def test_clients_note_who_answers() -> None:
    async with served(answers(response())) as clients:
        clients.closed_loop(kept=2, fresh=2, pause=0.001)
        await clients.until(lambda: len(clients.answers) >= 40, 20, "no answers")
        assert not clients.lost
        assert clients.reconnects == 0
        assert clients.first[os.getpid()] is clients.answers[0]
        assert clients.last["0"] == clients.answers[-1].answered
        assert (clients.answers[0].began, clients.answers[0].ended) == (1.0, 2.0)


@in_a_loop
async def test_a_request_that_is_closed_upon_is_lost_and_the_client_goes_on() -> None:
    async with served(answers(response(), times=2)) as clients:
        clients.closed_loop(kept=1, fresh=0, pause=0.001)
        await clients.until(lambda: len(clients.lost) >= 3, 20, "nothing lost")
        assert all(one.kept for one in clients.lost)
        assert len(clients.answers) >= 6


@in_a_loop
async def test_an_announced_close_and_one_that_has_arrived_lose_nothing() -> None:
    async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response())
        writer.close()

    for serve in (answers(response(fields="Connection: close\r\n")), close_at_once):
        async with served(serve) as clients:
            clients.closed_loop(kept=1, fresh=0, pause=0.05)
            await clients.until(lambda seen=clients: seen.reconnects >= 3, 20, "no reconnect")  # type: ignore[misc]
            assert not clients.lost


@pytest.mark.parametrize(
    "data",
    [
        response(status_line="503 Service Unavailable"),
        response()[:-1],
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 200_000,
        response("two words"),
    ],
    ids=["status", "short", "no length", "no end", "body"],
)
@in_a_loop
async def test_anything_but_a_whole_right_answer_is_a_loss(data: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    async with served(serve) as clients:
        clients.open_loop(0.005)
        clients.closed_loop(kept=1, fresh=1, pause=0.005)
        await clients.until(lambda: {one.kept for one in clients.lost} == {True, False}, 20, "nothing lost")
        assert not clients.answers


@in_a_loop
async def test_a_refused_connection_is_a_loss_and_said() -> None:
    async with Clients(processes.free_port()) as clients:
        clients.closed_loop(kept=0, fresh=1, pause=0.01)
        await clients.until(lambda: len(clients.lost) > 1, 20, "nothing lost")
        with pytest.raises(BenchError, match=r"nobody came within 0 s .*lost; last: ConnectionRefusedError"):
            await clients.until(lambda: False, 0.0, "nobody came")


def test_ratios_are_of_medians_with_the_rounds_extremes() -> None:
    assert tables.ratio({0: 1.0, 1: 3.0, 2: 2.0}, {0: 2.0, 1: 3.0, 2: 4.0}) == Spread(2 / 3, 0.5, 1.0)
    assert tables.ratio({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("found", "most", "least"),
    [
        (Spread(0.5, 0.4, 0.5), "met", "open"),
        (Spread(0.4, 0.3, 0.45), "met", "missed"),
        (Spread(0.6, 0.55, 0.7), "missed", "met"),
        (Spread(0.5, 0.4, 0.6), "open", "open"),
    ],
)
def test_a_verdict_is_open_when_the_rounds_disagree(found: Spread, most: str, least: str) -> None:
    assert tables.at_most(found, 0.5, " s") == f"at most 0.5 s: {most}"
    assert tables.at_least(found, 0.5) == f"at least 0.5: {least}"


def rolled(seconds: float, *, lost: int = 0, own: float = 0.6) -> Rolled:
    return Rolled(seconds, own, {"kept": lost, "fresh": 0}, 8, 500, 0.05)


def test_the_roll_is_compared_with_the_fastest_that_loses_nothing() -> None:
    found = {
        "ours": {0: rolled(1.0), 1: rolled(1.2)},
        "uvicorn": {0: rolled(2.0), 1: rolled(3.0)},
        "gunicorn": {0: rolled(0.5), 1: rolled(0.5, lost=1)},  # faster, but for the one request
        "granian": {0: rolled(8.0), 1: rolled(8.0)},
        "h2corn": {0: rolled(0.9), 1: rolled(0.9)},
    }
    text = tables.rolls(found, LABELS, "ours")
    assert "| Ours | 1.10 (1.00-1.20) s | 0.60 s | 0.50 (0.40-0.60) s | 0 0 | 0 + 0 |" in text
    assert "| Gunicorn | 0.50 (0.50-0.50) s | 0.60 s | -0.10 (-0.10--0.10) s | 0 1 | 1 + 0 |" in text
    assert "at most 2 s: met" in text
    assert "Uvicorn is the fastest that lost none: Ours ÷ it is 0.44 (0.40-0.50); at most 0.5: met." in text
    assert "H2corn is the fastest that lost none: Ours ÷ it is 1.22 (1.11-1.33)." in text


def test_it_is_said_when_no_peer_loses_nothing() -> None:
    found = {"ours": {0: rolled(1.0)}, "uvicorn": {0: rolled(2.0, lost=2)}}
    assert tables.fastest(found, LABELS, "ours").startswith("Of the peers of the target none lost no request.")


def test_the_other_tables_judge_ours_alone() -> None:
    scaling = tables.scaling({"ours": {0: (100.0, 180.0)}, "uvicorn": {0: (100.0, 150.0)}}, LABELS, "ours")
    assert "| Ours | 100 (100-100) | 180 (180-180) | 1.80 (1.80-1.80) | at least 1.7: met |" in scaling
    assert scaling.endswith("| 1.50 (1.50-1.50) | - |")
    idle = {"ours": Idle(31 << 20, 2_000_000, 20, 8_000_000, 20.0), "uvicorn": Idle(1 << 20, 0, 0, 0, 20.0)}
    parents = tables.parents(idle, LABELS, "ours")
    assert "| Ours | 31.0 MiB | 2.00 ms | 20 | 8.0 ms | at most 30 MiB: missed; no CPU: met |" in parents
    crash = tables.crashes({0: Crash(0.5, 0.38, 0.01, 0.04, 100, 1)})
    assert "| 120 (120-120) ms | at most 100 ms: missed | 100, 1 lost |" in crash
    reloads = {
        ("ours", "versioned"): {0: [Reloaded(0.2, 0.1, 0)]},
        ("uvicorn", "versioned"): {0: [Reloaded(0.4, 0.2, 3)]},
    }
    table = tables.reloads(reloads, LABELS, "ours")
    assert "400 (400-400) ms; 3 lost | 0.50 (0.50-0.50) | at most 0.7: met |" in table
    assert "| FastAPI | - | - | - | - |" in table


def test_nothing_found_is_an_error() -> None:
    with pytest.raises(BenchError):
        sections(Found(), [], QUICK)


def test_servers_of_the_fleet_have_two_workers_and_are_known() -> None:
    servers = load_catalogue().select(SERVERS)
    assert {server.name for server in servers} == set(SERVERS)
    for server in servers:
        assert "2" in server.with_workers(2)
        assert "{" not in "".join(server.with_workers(2))
    assert {server.name for server in servers if server.reload} == {"lastcall", "uvicorn"}


def test_command_line_takes_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser().parse_args(["fleet"]).parts == PARTS
    assert parser().parse_args(["fleet", "--parts", "roll,crash"]).parts == ["roll", "crash"]
    with pytest.raises(SystemExit):
        parser().parse_args(["fleet", "--parts", "roll,nosuch"])
    assert "nosuch" not in PARTS
    assert "scaling, parent" in capsys.readouterr().err


@pytest.mark.slow
def test_a_roll_of_this_server_is_seen_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lastcall", "{app}:app", "--port", "{port}"]
    extra = ["--workers", "{workers}", "--control-socket", str(tmp_path / "ctl")]
    entry = {"name": "ours", "role": "ours", "command": command, "fleet": extra}
    catalogue = parse_catalogue({"common": {"install": [], "distributions": []}, "server": [entry]})
    cores = sorted(os.sched_getaffinity(0))
    session = Session(catalogue, cores[0], cores[-1])
    found = roll.measure(session, catalogue.servers[0])
    assert found.lost == {"kept": 0, "fresh": 0}
    assert found.reconnects == 0
    assert found.seconds > found.own >= roll.IMPORT_SECONDS
    assert found.answers > 0
