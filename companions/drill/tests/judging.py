"""The tiny server as something to be judged."""

from __future__ import annotations

import sys
from pathlib import Path

from lastcall_drill.scenario import Scenario, scenarios
from lastcall_drill.servers import Asked, Program, Target

SERVERS = Path(__file__).parent / "servers"
TINY = SERVERS / "tiny.py"


def tiny(fault: str = "") -> Target:
    """The tiny server, with one of its faults."""
    program = Program(
        "tiny",
        f"{{python}} {TINY} {{app}}" + (f" --fault {fault}" if fault else ""),
        tcp="--port {port}",
        unix="--uds {path}",
        options={"grace": "--grace {grace}"},
        features=frozenset({"lifespan", "fractions"}),
    )
    return Target(Asked(fault or "good", "tiny"), program, "1", Path(sys.executable))


def tiny_fleet(fault: str = "") -> Target:
    """The tiny server under a parent, with one of its faults."""
    program = Program(
        "tiny-fleet",
        f"{{python}} {SERVERS / 'tiny_fleet.py'} {{app}}" + (f" --fault {fault}" if fault else ""),
        tcp="--port {port}",
        options={
            "grace": "--grace {grace}",
            "workers": "--workers {workers}",
            "max_requests": "--max-requests {max_requests}",
        },
        features=frozenset({"lifespan", "fractions", "restart", "scale", "upgrade", "hands-over"}),
    )
    return Target(Asked(fault or "good", "tiny-fleet"), program, "1", Path(sys.executable))


def scenario_of(name: str) -> Scenario:
    """A scenario by its id."""
    return next(one for one in scenarios() if one.id == name)
