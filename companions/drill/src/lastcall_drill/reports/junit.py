"""JUnit XML in the dialect that Jenkins' schema describes and that GitLab, GitHub actions and Azure read.

A server is a test suite, a scenario a test case. ``fail`` is a failure, ``error`` an error; ``unsupported``,
``unreached`` and what was not run are skipped. The timeline of each case is its ``system-out``, the end of the
server's output its ``system-err``.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from lastcall_drill.reports import console, facts, text
from lastcall_drill.verdicts import Result, Run, ScenarioInfo, ServerInfo, Verdict

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.ERROR: "error",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.UNREACHED: "skipped",
}


def write(run: Run) -> str:
    """The document, with its XML declaration. Times are seconds."""
    root = ET.Element("testsuites", name="lastcall drill")
    found = facts.cells(run)
    for number, server in enumerate(run.servers):
        root.append(_suite(run, server, found, number))
    suites = list(root)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in suites)))
    root.set("time", f"{sum(float(suite.attrib['time']) for suite in suites):.3f}")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(run: Run, server: ServerInfo, found: facts.Cells, number: int) -> ET.Element:
    tallied = facts.tally_of(run, server, found)
    judged = tallied[Verdict.PASS] + tallied[Verdict.FAIL] + tallied[Verdict.ERROR]
    results = [found.get((server.label, scenario.id)) for scenario in run.scenarios]
    suite = ET.Element(
        "testsuite",
        name=text.one_line(server.label),
        tests=str(len(run.scenarios)),
        failures=str(tallied[Verdict.FAIL]),
        errors=str(tallied[Verdict.ERROR]),
        skipped=str(len(run.scenarios) - judged),
        time=f"{sum(one.seconds for one in results if one is not None):.3f}",
        id=str(number),
    )
    # The schemas want local time without a zone; the run's is UTC.
    if moment := re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", run.date):
        suite.set("timestamp", moment[0])
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(run, server):
        ET.SubElement(properties, "property", name=name, value=text.one_line(value))
    for scenario, result in zip(run.scenarios, results, strict=True):
        suite.append(_case(server, scenario, result))
    return suite


def _properties(run: Run, server: ServerInfo) -> list[tuple[str, str]]:
    return [
        ("server", server.name),
        ("version", server.version),
        ("command", server.command),
        ("python", server.python),
        ("machine", run.machine),
        ("scale", f"{run.scale:g}"),
    ]


def _case(server: ServerInfo, scenario: ScenarioInfo, result: Result | None) -> ET.Element:
    spent = 0.0 if result is None else result.seconds
    case = ET.Element(
        "testcase", classname=text.one_line(server.label), name=text.one_line(scenario.id), time=f"{spent:.3f}"
    )
    if result is None:
        ET.SubElement(case, "skipped", message="not run")
        return case
    if kind := _ELEMENTS.get(result.verdict):
        judgement = ET.SubElement(case, kind, message=text.one_line(result.sentence))
        if kind != "skipped":
            judgement.set("type", result.verdict.value)
        judgement.text = text.clean(_explanation(scenario, result))
    ET.SubElement(case, "system-out").text = text.clean(f"{result.sentence}\n{console.timeline(result)}")
    if result.output:
        ET.SubElement(case, "system-err").text = text.excerpt(result.output)
    return case


def _explanation(scenario: ScenarioInfo, result: Result) -> str:
    lines = [
        scenario.title,
        f"clause: {scenario.clause}",
        f"asked by: {facts.BASES[scenario.basis] if scenario.basis else 'not said'}",
        f"rule: {scenario.rule}",
        f"tolerance: {scenario.tolerance}",
        f"tries: {result.tries}",
        f"exit code: {'unknown' if result.exit_code is None else result.exit_code}",
    ]
    if facts.unexpected(result) and result.expected is not None:
        lines.append(f"recorded for this release: {result.expected.value}")
    return "\n".join(lines)
