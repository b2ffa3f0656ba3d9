"""Links lead somewhere, and every page can be found."""

from __future__ import annotations

import pytest

from testing.pages import DOCS, DOCUMENTATION, PAGES, ROOT, Page, anchor, page

BY_PATH = {one.path: one for one in PAGES}


@pytest.mark.parametrize("one", PAGES, ids=str)
def test_every_internal_link_resolves(one: Page) -> None:
    for link in one.links:
        if "://" in link:
            assert link.startswith("https://"), link
            continue
        target, _, heading = link.partition("#")
        path = (one.path.parent / target).resolve() if target else one.path
        assert path.is_file(), f"{one}: {link}"
        assert path.is_relative_to(ROOT)
        if heading:
            assert heading in BY_PATH[path].anchors, f"{one}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = page("docs/index.md")
    linked = {(DOCS / link).resolve() for link in index.links}
    assert {one.path for one in DOCUMENTATION} - linked == {index.path}


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/index.md" in page("README.md").links


def test_anchors_are_made_as_on_github() -> None:
    assert anchor("Where the code differs: `wire`, and more") == "where-the-code-differs-wire-and-more"
