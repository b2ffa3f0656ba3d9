"""JUnit XML, read back: the elements and attributes that Jenkins' schema allows, and what CI systems show."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from companions.drill.tests import samples
from lastcall_drill.record import replace
from lastcall_drill.reports import junit
from lastcall_drill.verdicts import Run

RUN = samples.run()
# Jenkins' junit-10.xsd, the part in use: what an element must have, what it may have, and its children.
SCHEMA: dict[str, tuple[set[str], set[str], list[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "id", "package"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, set(), []),
    "testcase": (
        {"name"},
        {"time", "classname"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": (set(), {"type", "message"}, []),
    "error": (set(), {"type", "message"}, []),
    "skipped": (set(), {"type", "message"}, []),
    "system-out": (set(), set(), []),
    "system-err": (set(), set(), []),
}
COUNT = re.compile(r"\d+")
TIME = re.compile(r"\d+\.\d{3}")


def check(element: ET.Element) -> None:
    required, optional, children = SCHEMA[element.tag]
    assert required <= set(element.attrib) <= required | optional
    places = [children.index(child.tag) for child in element]
    assert places == sorted(places)
    for name in {"tests", "failures", "errors", "skipped", "id"} & set(element.attrib):
        assert COUNT.fullmatch(element.attrib[name])
    if "time" in element.attrib:
        assert TIME.fullmatch(element.attrib["time"])
    for child in element:
        check(child)


@pytest.mark.parametrize("run", [RUN, samples.hostile(), replace(RUN, results=())], ids=["sample", "hostile", "none"])
def test_it_is_valid(run: Run) -> None:
    written = junit.write(run)
    root = ET.fromstring(written.encode())  # in bytes: nothing that UTF-8 or XML cannot have
    assert root.tag == "testsuites"
    check(root)
    assert written.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    assert re.search("[\x00-\x08\x0b-\x1f\ufffe\uffff]", written) is None


def test_counts_are_those_of_the_cases() -> None:
    root = ET.fromstring(junit.write(RUN))
    assert root.attrib["tests"] == "50"
    assert (root.attrib["failures"], root.attrib["errors"]) == ("11", "1")
    for suite, server in zip(root, RUN.servers, strict=True):
        assert suite.attrib["name"] == server.label
        for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{kind}"))
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == 10
        spent = sum(float(case.attrib["time"]) for case in suite.findall("testcase"))
        assert float(suite.attrib["time"]) == pytest.approx(spent, abs=0.01)
        assert suite.attrib["timestamp"] == "2026-11-22T20:40:00"
    properties = {one.attrib["name"]: one.attrib["value"] for one in root[1].findall("properties/property")}
    assert properties["version"] == "0.21.1"
    assert properties["command"] == "uvicorn subject:app --port 41214"


def test_a_failure_explains_itself() -> None:
    root = ET.fromstring(junit.write(RUN))
    case = root[3].find("testcase[@name='request-in-flight']")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("The process was still there 12 s after SIGTERM")
    assert failure.attrib["type"] == "fail"
    explanation = failure.text or ""
    assert "rule: The process has ended by itself" in explanation
    assert "tries: 2" in explanation
    assert "recorded for this release: pass" in explanation
    assert "  +0.000 s  signal" in (case.findtext("system-out") or "")
    assert "Waiting for connections to close" in (case.findtext("system-err") or "")
    assert case.attrib["classname"] == "hypercorn"


def test_what_was_not_run_is_skipped() -> None:
    root = ET.fromstring(junit.write(replace(RUN, results=())))
    messages = {one.attrib["message"] for one in root.iter("skipped")}
    assert messages == {"not run"}
    assert root.attrib["failures"] == root.attrib["errors"] == "0"


def test_what_is_hostile_is_text() -> None:
    root = ET.fromstring(junit.write(samples.hostile()).encode())
    assert [one.tag for one in root.iter()].count("testcase") == 1
    assert root[0].attrib["name"].startswith("<script>alert(1)</script>")
    assert "timestamp" not in root[0].attrib
