"""The description, and the service against it: schemathesis makes requests of it, good and bad, and reads the answers.

Its checks: no 5xx, no status, type or member that is not described, what fits is taken and what does not is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import positive_data_acceptance

from companions.once.tests.service.serving import Serving, bearer
from lastcall_once.service.faults import CODES
from lastcall_once.service.openapi import document, faults_of
from lastcall_once.service.routes import ROUTES, Router

Case = Any  # schemathesis's is generic over what is not ours
DESCRIPTION: Any = document()
# Without the key, which every request here brings: requests that are meant to have none would be taken.
SCHEMA = schemathesis.openapi.from_dict({**DESCRIPTION, "security": []})
QUICK = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(QUICK, max_examples=500)

# Where a request may fit the schema and be refused: the agent of the body has to be that of the path, days are a range.
BEYOND_THE_SCHEMA = {"/v1/metrics", "/v1/policies/{agent_id}", "/v1/policies/{agent_id}/from-template"}


@pytest.fixture(scope="module")
def target(served: tuple[Serving, str]) -> Iterator[Callable[[Case], None]]:
    """Makes a request of a real process, and checks the response."""
    service, address = served
    headers = bearer(service.key())
    with requests.Session() as session:

        def make(case: Case) -> None:
            excluded = [positive_data_acceptance] if case.operation.path in BEYOND_THE_SCHEMA else []
            case.call_and_validate(base_url=address, headers=headers, session=session, excluded_checks=excluded)

        yield make


@pytest.mark.slow
@SCHEMA.parametrize()
@QUICK
def test_the_service_does_what_the_description_says(case: Case, target: Callable[[Case], None]) -> None:
    target(case)


@pytest.mark.soak
@pytest.mark.timeout(600)
@SCHEMA.parametrize()
@LONG
def test_the_service_does_what_the_description_says_at_length(case: Case, target: Callable[[Case], None]) -> None:
    target(case)


@pytest.mark.slow
def test_it_is_served_without_a_key(served: tuple[Serving, str]) -> None:
    told = requests.get(f"{served[1]}/openapi.json", timeout=10)
    assert told.status_code == 200
    assert told.json() == DESCRIPTION


def test_every_route_is_described_and_found() -> None:
    described = {(method.upper(), path) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        found = Router().find(route.path.replace("{", "").replace("}", "").encode())
        assert found is not None
        assert found.routes[route.method] is route
        assert list(found.values) == route.variables


def test_names_are_unique_and_everything_is_said() -> None:
    operations = [operation for methods in DESCRIPTION["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"].endswith(".") for operation in operations)


def test_every_code_is_described_somewhere() -> None:
    """But for the one whose path is nowhere."""
    assert {code for route in ROUTES for code in faults_of(route)} == set(CODES) - {"method_not_allowed"}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (b"/v1/runs/a%2Fb", {"run_id": "a/b"}),
        (b"/v1/runs/%C3%A9", {"run_id": "\u00e9"}),
        (b"/v1/usage/all", {}),
        (b"/v1/tools/a/toggle", {"name": "a"}),
        (b"/v1/tools/a/b", None),
        (b"/v1/tools/", None),
        (b"/v1", None),
        (b"", None),
        (b"v1/me", None),
    ],
)
def test_paths(path: bytes, values: dict[str, str] | None) -> None:
    found = Router().find(path)
    assert (None if found is None else found.values) == values
