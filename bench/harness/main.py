"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import accesslog, idle, load, once, startup, wrk
from .catalogue import load_catalogue, select_workloads
from .errors import BenchError
from .fleet import measurement as fleet
from .session import Session

# What is measured when --servers does not say: the load runs with everybody, the others compare with the incumbent.
PAIR = ["lastcall", "uvicorn"]


def names(text: str) -> list[str]:
    """A comma-separated list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parts(text: str) -> list[str]:
    """A comma-separated list of parts of `fleet`."""
    found = names(text)
    if not found or not set(found) <= set(fleet.PARTS):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(fleet.PARTS)}")
    return found


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parser() -> argparse.ArgumentParser:
    """The options; what is None here gets its default from the measurement."""
    top = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Compare lastcall with other ASGI servers. Results go to stdout as Markdown, progress to stderr.",
    )
    top.add_argument(
        "measurement",
        nargs="?",
        default="load",
        choices=["load", "idle", "startup", "accesslog", "once", "fleet"],
        help="load (default): CPU per request and requests/s; idle: idle connections; startup: time to the first "
        "answer; accesslog: cost of an access line; once: the guard against doing it twice; fleet: two workers, their "
        "parent, and how they are replaced",
    )
    top.add_argument("--servers", type=names, metavar="A,B", help="names from bench/peers.toml")
    top.add_argument("--workloads", type=names, metavar="A,B", help="load: some of the workloads")
    top.add_argument(
        "--parts", type=parts, default=fleet.PARTS, metavar="A,B", help=f"fleet: some of {', '.join(fleet.PARTS)}"
    )
    top.add_argument(
        "--rounds", type=positive, default=5, help="load, accesslog, once, fleet: interleaved rounds (default 5)"
    )
    top.add_argument("--seconds", type=positive, help="whole seconds measured (default 2; idle: 10)")
    top.add_argument("--connections", type=positive, default=10_000, help="idle: connections (default 10000)")
    top.add_argument("--starts", type=positive, default=15, help="startup: starts of each server (default 15)")
    top.add_argument("--quick", action="store_true", help="one short round without warm-up: does everything work?")
    top.add_argument("--json", type=Path, metavar="FILE", help="write every single sample to FILE")
    top.add_argument("--write-docs", action="store_true", help="put the result into docs/explanation/performance.md")
    top.add_argument("--refresh", action="store_true", help="upgrade the servers' venvs to the newest releases")
    top.add_argument("--server-core", type=int, default=0, help="core of the server (default 0)")
    top.add_argument("--load-core", type=int, default=1, help="core of the load generator (default 1)")
    return top


def run(options: argparse.Namespace) -> None:
    """Prepare the servers and take the measurement. Raises BenchError."""
    if options.measurement != "once":
        wrk.require_tools()
    catalogue = load_catalogue()
    workloads = select_workloads(options.workloads)
    wanted = options.servers or {"load": None, "fleet": fleet.SERVERS}.get(options.measurement, PAIR)
    servers = catalogue.select(wanted)
    session = Session(
        catalogue,
        options.server_core,
        options.load_core,
        refresh=options.refresh,
        json_path=options.json,
        write_docs=options.write_docs,
    )
    session.claim_cores()
    quick = options.quick
    if options.measurement == "once":
        once.run(session, rounds=1 if quick else options.rounds, quick=quick)
        return
    session.prepare(servers)
    rounds, warm_up = (1, 0) if quick else (options.rounds, 1)
    seconds = options.seconds or (1 if quick else 2)
    if options.measurement == "load":
        load.run(session, workloads, rounds=rounds, seconds=seconds, warm_up=warm_up)
    elif options.measurement == "accesslog":
        accesslog.run(session, rounds=rounds, seconds=seconds, warm_up=warm_up)
    elif options.measurement == "fleet":
        whole = fleet.Size(rounds, options.seconds or 3, fleet.IDLE_SECONDS, fleet.SAVES)
        fleet.run(session, fleet.QUICK if quick else whole, parts=options.parts)
    elif options.measurement == "startup":
        startup.run(session, starts=2 if quick else options.starts)
    else:
        connections = min(options.connections, 1000) if quick else options.connections
        idle.run(session, connections=connections, seconds=options.seconds or (2 if quick else 10))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit code 0, 1 when it could not be taken, 130 after Ctrl-C."""
    options = parser().parse_args(argv)
    try:
        run(options)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
