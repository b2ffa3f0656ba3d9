"""From facts to findings. Pure: no file, process or clock is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lastcall_doctor import rules_app, rules_place, rules_stop, rules_way
from lastcall_doctor.catalogue import Finding, Severity
from lastcall_doctor.facts import Facts

__all__ = ["RULES", "Finding", "Severity", "examine", "is_sound"]

RULES: Final[tuple[Callable[[Facts], Iterable[Finding]], ...]] = (
    rules_stop.stop_timeout,
    rules_stop.stop_unbounded,
    rules_stop.stop_signal,
    rules_stop.shell_in_front,
    rules_stop.kill_mode,
    rules_stop.drain_delay,
    rules_place.commands,
    rules_place.service_type,
    rules_place.restart,
    rules_place.readiness,
    rules_place.loopback,
    rules_place.descriptors,
    rules_place.backlog,
    rules_place.python,
    rules_place.no_effect,
    rules_app.start,
    rules_app.lifespan,
    rules_app.probe,
    rules_way.keep_alive,
    rules_way.proxy_buffering,
    rules_way.proxy_read_timeout,
    rules_way.proxy_keep_alive,
    rules_way.stream_headers,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, the worst first; equal ones in the order of the rules."""
    order = list(Severity)
    found = [finding for rule in RULES for finding in rule(facts)]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def is_sound(findings: Iterable[Finding]) -> bool:
    """Whether none of them is an error."""
    return all(finding.severity is not Severity.ERROR for finding in findings)
