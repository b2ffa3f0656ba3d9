"""What the retries of real clients come to: openai, anthropic and stripe, as they are installed.

openai and anthropic obey Retry-After (openai up to 120 s), stripe does not; all repeat a 409 twice, unless a header
says that it is final.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import stripe

from companions.once.tests.charging import Service, began
from testing.process import ServerProcess

pytestmark = pytest.mark.slow

# Ask for a charge: the path, the key, more headers. Returns the status and the body's text.
Ask = Callable[[str, str, dict[str, str]], tuple[int, str]]


def by_openai(url: str) -> Ask:
    return _generated(openai, openai.OpenAI(api_key="me", base_url=url))


def by_anthropic(url: str) -> Ask:
    return _generated(anthropic, anthropic.Anthropic(api_key="me", base_url=url))


def _generated(package: Any, client: Any) -> Ask:
    def ask(path: str, key: str, headers: dict[str, str]) -> tuple[int, str]:
        options = {"headers": {"Idempotency-Key": key, **headers}}
        try:
            return 201, client.post(path, cast_to=str, body={}, options=options)
        except package.APIStatusError as exc:
            return exc.status_code, exc.response.text

    return ask


def by_stripe(url: str) -> Ask:
    client = stripe.StripeClient("me", base_addresses={"api": url}, max_network_retries=2)

    def ask(path: str, key: str, headers: dict[str, str]) -> tuple[int, str]:
        try:
            answer = client.raw_request("post", path, idempotency_key=key, headers=headers)
        except stripe.StripeError as exc:
            return exc.http_status or 0, str(exc.http_body)
        return answer.code, answer.body

    return ask


CLIENTS = [by_openai, by_anthropic, by_stripe]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(tmp_path, stack)


def attempts(service: Service) -> int:
    (record,) = service.records()
    return record.attempts


def two_at_once(
    service: Service, server: ServerProcess, client: Callable[[str], Ask], seconds: str
) -> list[tuple[int, str]]:
    """Ask for one charge twice, the second time when the first one runs. It is carried out once."""
    path, answers = f"/charge?{seconds}", [(0, ""), (0, "")]

    def first() -> None:
        answers[0] = client(server.addresses[0])(path, "k", {})

    thread = threading.Thread(target=first)
    thread.start()
    began(server)
    answers[1] = client(server.addresses[0])(path, "k", {})
    thread.join()
    assert service.effects == 1
    return answers


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_final_is_not_asked_for_again(service: Service, client: Callable[[str], Ask]) -> None:
    server = service.start()
    ask = client(server.addresses[0])
    assert ask("/charge", "k", {"Cookie": "sid=1"})[0] == 201
    status, body = ask("/charge", "k", {"Cookie": "sid=2"})
    assert status == 409
    assert "once_other_caller" in body
    assert attempts(service) == 2
    assert service.effects == 1


@pytest.mark.parametrize("client", [by_openai, by_anthropic])
def test_who_obeys_the_hint_is_there_when_the_work_is_done(service: Service, client: Callable[[str], Ask]) -> None:
    """Three tries of 1 s each would be over by then."""
    answers = two_at_once(service, service.start(), client, "2.3")
    assert [status for status, _ in answers] == [201, 201]
    assert attempts(service) <= 4


@pytest.mark.parametrize("client", CLIENTS)
def test_with_wait_everybody_gets_the_answer(service: Service, client: Callable[[str], Ask]) -> None:
    """Also who does not look at Retry-After."""
    first, second = two_at_once(service, service.start(WAIT="30"), client, "3")
    assert first == second
    assert first[0] == 201
    assert attempts(service) == 2
