"""From facts to findings. Pure: no file, process or clock is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lastcall_doctor import rules_app, rules_host, rules_proxy, rules_stop
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
    rules_host.commands,
    rules_host.service_type,
    rules_host.restart,
    rules_host.readiness,
    rules_host.loopback,
    rules_host.descriptors,
    rules_host.backlog,
    rules_host.python,
    rules_host.no_effect,
    rules_app.start,
    rules_app.lifespan,
    rules_app.probe,
    rules_proxy.keep_alive,
    rules_proxy.proxy_buffering,
    rules_proxy.proxy_read_timeout,
    rules_proxy.proxy_keep_alive,
    rules_proxy.cut_hidden,
    rules_proxy.stream_headers,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, the worst first; equal ones in the order of the rules."""
    order = list(Severity)
    found = [finding for rule in RULES for finding in rule(facts)]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def is_sound(findings: Iterable[Finding]) -> bool:
    """Whether none of them is an error."""
    return all(finding.severity is not Severity.ERROR for finding in findings)
