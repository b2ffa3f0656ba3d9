"""The page as text: it is well formed, loads nothing, lets nothing in, and is the same each time."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html.parser import HTMLParser
from importlib import resources

import pytest

from companions.drill.tests import samples
from lastcall_drill.record import replace
from lastcall_drill.reports import html
from lastcall_drill.verdicts import Moment, Source

VOID = {"br", "hr", "input", "link", "meta"}


class Page(HTMLParser):
    """The elements of a page, and the text by element; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def having(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@cache
def sample_page() -> Page:
    return Page(html.write(samples.run()))


@pytest.fixture(scope="module", params=["sample", "hostile", "empty"])
def written(request: pytest.FixtureRequest) -> str:
    run = samples.run()
    runs = {
        "sample": run,
        "hostile": samples.hostile(),
        "empty": replace(run, servers=(), scenarios=(), results=()),
    }
    return html.write(runs[request.param])


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere(page: Page) -> None:
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    inner = [link[1:] for link in page.having("href") if link.startswith("#") and link != "#"]
    assert inner
    assert set(inner) - set(ids) == set()
    assert set(page.having("aria-labelledby")) - {"panel-title"} <= set(ids)  # the script makes that one


def test_nothing_is_loaded(page: Page) -> None:
    assert {"src", "srcset", "action", "formaction", "background", "poster", "ping"} & {
        name for _, attributes in page.elements for name in attributes
    } == set()
    links = [(tag, attributes) for tag, attributes in page.elements if "href" in attributes]
    assert {tag for tag, _ in links} == {"a", "link"}
    outer = [attributes["href"] for tag, attributes in links if not attributes["href"].startswith("#")]
    assert [link for link in outer if not link.startswith(("https://", "data:image/svg+xml,"))] == []
    style = resources.files("lastcall_drill.reports").joinpath("page.css").read_text()
    assert re.search(r"url\(|@import|@font-face", style) is None


def test_the_policy_allows_exactly_the_style_and_the_scripts(page: Page) -> None:
    (policy,) = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for content in page.texts["style"] + page.texts["script"]
    }
    assert len(page.texts["script"]) == 2
    assert set(re.findall(r"'sha256-[^']+'", policy)) == hashes
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_no_handlers_and_no_styles_within_elements(page: Page) -> None:
    names = {name for _, attributes in page.elements for name in attributes}
    assert [name for name in names if name.startswith("on") or name == "style"] == []


def test_the_same_run_gives_the_same_page(written: str) -> None:
    again = {html.write(samples.run()), html.write(samples.hostile())}
    assert written in again or "0 servers, 0 scenarios" in written
    assert "\r" not in written


def test_what_is_hostile_is_text() -> None:
    page = Page(html.write(samples.hostile()))
    assert "<script>alert(1)</script></style></title>" in page.texts["h4"][0]
    assert "<script>alert(1)</script></style></title>" in page.texts["pre"][0]
    assert [link for link in page.having("href") if link.startswith("javascript")] == []
    assert "javascript:alert(1)" in page.texts["li"]


def test_issues_and_addresses_are_links() -> None:
    links = [link for link in sample_page().having("href") if link.startswith("https")]
    assert set(links) == {"https://github.com/Kludex/uvicorn/issues/451", "https://asgi.readthedocs.io/"}


def test_fragments_are_server_and_scenario() -> None:
    assert html.anchor("uvicorn==0.21.1", "idle-exit") == "uvicorn==0.21.1/idle-exit"
    assert html.anchor("a/b", "c") != html.anchor("a", "b/c")
    assert html.anchor("a b", 'é"<') == "a%20b/%C3%A9%22%3C"


def test_a_cell_says_verdict_time_and_tries() -> None:
    cells = [one for one in sample_page().texts["td"] if "pass" in one or "fail" in one]
    assert cells[0] == "pass, lastcall.  0.034 s"
    assert cells[1] == "fail, uvicorn==0.21.1.  > 12.0 s try 2"
    assert [one for one in cells if "not as recorded" in one] == ["fail, hypercorn.  > 12.0 s try 2 not as recorded"]


def test_what_was_not_run_has_no_link() -> None:
    run = samples.run()
    page = Page(html.write(replace(run, results=run.results[1:])))
    assert "not run" in page.texts["td"]
    assert "#lastcall/endless-stream-ends" not in page.having("href")


def test_every_moment_is_in_the_table_or_counted_in_it() -> None:
    page = sample_page()
    assert "14 bytes · 59 times, until +11.800 s" in page.texts["td"]
    assert "the drill's deadline: SIGKILL to the session" in page.texts["td"]


def test_a_table_of_thousands_of_moments_is_cut_in_its_middle() -> None:
    run = samples.run()
    moments = tuple(Moment(n / 100, Source.CLIENT, "request", f"client {n}") for n in range(1000))
    one = replace(run, results=(replace(run.results[0], moments=moments),))
    cells = Page(html.write(one)).texts["td"]
    assert "client 79" in cells
    assert "client 80" not in cells
    assert "client 999" in cells
    assert "840 rows are left out here; the same run as JSON has every moment." in cells


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(theme: int) -> None:
    style = resources.files("lastcall_drill.reports").joinpath("page.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: (light, dark)[theme] for name, light, dark in pairs}
    verdicts = ("pass", "fail", "unsupported", "error")
    on = {"paper": {"ink", "faint", "accent", *verdicts}, "raised": {"ink", "faint", *verdicts}}
    on |= {f"{verdict}-tint": {verdict, "faint"} for verdict in verdicts} | {"fail-tint": {"fail", "faint", "error"}}
    found = {(ink, paper): contrast(colours[ink], colours[paper]) for paper, inks in on.items() for ink in inks}
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}
    # WCAG 1.4.11: shapes against what is behind them, and the mark within them.
    assert min(contrast(colours["mark"], colours[verdict]) for verdict in ("pass", "fail", "error")) >= 3
