"""The page in headless Chromium: seen, moved about in by keyboard, opened, filtered, printed, and without script."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from companions.drill.tests import samples
from lastcall_drill.reports import html
from testing.browser import FLAGS, program

pytestmark = pytest.mark.slow

SECONDS = 10
RUN = samples.run()
Open = Callable[..., Chrome]


def log(browser: Chrome, kind: str) -> list[Any]:
    """What a log of the browser has had since it was read last."""
    entries: list[Any] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    driver = Chrome(options=options, service=Service(program("chromedriver")))
    try:
        driver.set_page_load_timeout(SECONDS)
        driver.set_script_timeout(SECONDS)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "drill.html"
    path.write_text(html.write(RUN), "utf-8")
    return path


@pytest.fixture
def opened(browser: Chrome, file: Path) -> Iterator[Open]:
    """Opens the page in a window of some size; what the console said and what was requested is looked at afterwards."""

    def load(fragment: str = "", *, width: int = 1280, dark: bool = False, script: bool = True) -> Chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        media = [{"name": name, "value": value} for name, value in features.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        browser.get("about:blank")  # a change of the fragment alone would not load the page
        log(browser, "performance")
        browser.get(file.as_uri() + fragment)
        return browser

    yield load
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_script("try { localStorage.clear() } catch {}")
    assert log(browser, "browser") == []
    events = [json.loads(one["message"])["message"] for one in log(browser, "performance")]
    requests = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith(("data:", "about:", file.parent.as_uri()))] == []


def press(page: Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(page).send_keys(key).perform()


def focused(page: Chrome) -> str:
    return str(page.execute_script("return document.activeElement.getAttribute('href')"))


def panel(page: Chrome) -> Any:
    found = page.find_element(By.ID, "panel")
    return found if found.is_displayed() else None


def rows(page: Chrome) -> list[Any]:
    found = page.find_elements(By.CSS_SELECTOR, "#matrix tbody tr:not(.group)")
    return [row for row in found if row.is_displayed()]


def looks(page: Chrome, picture: str) -> tuple[int, float]:
    """How many colours a screenshot has, in 4096 steps, and its mean lightness from 0 to 1."""
    page.get("about:blank")
    colours, lightness = page.execute_async_script(
        """
        const [picture, done] = arguments;
        const image = new Image();
        image.onload = () => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.width, image.height];
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(0, 0, image.width, image.height);
          const colours = new Set();
          let sum = 0;
          for (let at = 0; at < data.length; at += 4) {
            colours.add(((data[at] >> 4) << 8) | ((data[at + 1] >> 4) << 4) | (data[at + 2] >> 4));
            sum += data[at] + data[at + 1] + data[at + 2];
          }
          done([colours.size, sum / (data.length / 4) / 765]);
        };
        image.src = "data:image/png;base64," + picture;
        """,
        picture,
    )
    return colours, lightness


@pytest.mark.parametrize(
    ("width", "dark", "fragment"),
    [
        pytest.param(1280, False, "", id="desktop-light"),
        pytest.param(1280, True, "", id="desktop-dark"),
        pytest.param(390, True, "", id="phone-dark"),
        pytest.param(1280, True, "#hypercorn/endless-stream-ends", id="panel-dark"),
        pytest.param(390, False, "#hypercorn/endless-stream-ends", id="panel-phone-light"),
    ],
)
def test_screenshots(opened: Open, width: int, dark: bool, fragment: str) -> None:
    page = opened(fragment, width=width, dark=dark)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width, "the page scrolls sideways"
    assert (panel(page) is not None) is bool(fragment)
    colours, lightness = looks(page, page.get_screenshot_as_base64())
    assert colours > 30
    assert lightness < 0.25 if dark else lightness > 0.55


def test_the_matrix_reads_as_the_run_says(opened: Open) -> None:
    page = opened()
    heads = page.find_elements(By.CSS_SELECTOR, "#matrix thead th .server")
    assert [head.text for head in heads] == ["lastcall", "uvicorn", "uvicorn", "hypercorn", "granian"]
    read = {
        row.find_element(By.CSS_SELECTOR, ".id").text: [
            cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td .word")
        ]
        for row in rows(page)
    }
    expected = {
        scenario.id: [
            result.verdict.value for server in RUN.servers if (result := RUN.result(server.label, scenario.id))
        ]
        for scenario in RUN.scenarios
    }
    assert read == expected
    grid = page.find_element(By.ID, "matrix")
    assert grid.aria_role == "grid"
    assert page.find_element(By.CSS_SELECTOR, "#matrix td").aria_role == "gridcell"


def test_keys_move_in_the_grid(opened: Open) -> None:
    page = opened()
    stops = page.find_elements(By.CSS_SELECTOR, "#matrix [tabindex='0']")
    assert len(stops) == 1, "the grid is one stop of the tab key"
    page.find_element(By.ID, "by-difference").send_keys(Keys.TAB)
    assert focused(page) == "#lastcall/endless-stream-ends"
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert focused(page) == "#uvicorn==0.21.1/finite-stream-finishes"
    press(page, Keys.END)
    assert focused(page) == "#granian/finite-stream-finishes"
    press(page, Keys.ARROW_RIGHT, Keys.PAGE_DOWN)
    assert focused(page) == "#granian/lifespan-after-tasks"
    press(page, Keys.HOME)
    assert focused(page) == "#scenario:lifespan-after-tasks"
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(Keys.CONTROL).perform()
    assert focused(page) == "#granian/workers-reaped"
    ring = page.execute_script(
        "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth"
    )
    assert ring == "solid2px"


def test_a_cell_opens_and_closes_by_keyboard(opened: Open) -> None:
    page = opened()
    page.find_element(By.ID, "by-difference").send_keys(Keys.TAB)
    press(page, Keys.ARROW_RIGHT, Keys.ENTER)
    shown = panel(page)
    assert shown is not None
    assert shown.accessible_name == "An endless stream does not keep the server from stopping endless-stream-ends"
    assert shown.find_element(By.CSS_SELECTOR, ".subject").text.split() == ["fail", "uvicorn==0.21.1"]
    assert "was still there 12 s after SIGTERM" in shown.find_element(By.CSS_SELECTOR, ".sentence").text
    moments = [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in shown.find_elements(By.CSS_SELECTOR, ".moments tbody tr")
    ]
    assert ["+0.000 s", "drill", "signal", "", "SIGTERM to 4211"] in moments
    assert moments[-1] == ["+12.003 s", "client", "rst", "stream", ""]
    drawn = shown.find_element(By.CSS_SELECTOR, "svg.timeline.wide")
    assert [one.text for one in drawn.find_elements(By.CSS_SELECTOR, ".lane-words")] == [
        "drill",
        "client",
        "app",
        "process",
    ]
    assert drawn.find_element(By.CSS_SELECTOR, ".flag").text == "SIGTERM"
    assert "Waiting for connections to close" in shown.find_element(By.TAG_NAME, "pre").text
    assert "0.5 s on the time to the exit, scaled" in shown.text
    assert page.current_url.endswith("#uvicorn==0.21.1/endless-stream-ends")
    press(page, Keys.ARROW_RIGHT)
    assert page.current_url.endswith("#uvicorn/endless-stream-ends")
    press(page, Keys.ESCAPE)
    assert panel(page) is None
    assert focused(page) == "#uvicorn/endless-stream-ends"
    assert "#" not in page.current_url


def test_labels_of_the_drawing_do_not_overlap_as_rendered(opened: Open) -> None:
    """The layout only estimates how wide words are; the browser knows."""
    for width, form in ((1280, "wide"), (390, "narrow")):
        for name in ("lastcall/endless-stream-ends", "uvicorn==0.21.1/endless-stream-ends", "granian/keepalive-closed"):
            page = opened(f"#{name}", width=width)
            boxes = page.execute_script(
                f"""return [...document.querySelectorAll('#panel svg.{form} text')].map(one => {{
                    const box = one.getBoundingClientRect();
                    return [box.left, box.top, box.right, box.bottom, one.textContent];
                }})"""
            )
            assert len(boxes) > 10
            touching = [
                (one[4], other[4])
                for at, one in enumerate(boxes)
                for other in boxes[at + 1 :]
                if min(one[2], other[2]) - max(one[0], other[0]) > 0.5
                and min(one[3], other[3]) - max(one[1], other[1]) > 2.5  # line boxes are higher than letters
            ]
            assert touching == []
            assert max(box[2] for box in boxes) <= width


def test_a_permalink_opens_its_cell(opened: Open) -> None:
    page = opened("#hypercorn/request-in-flight")
    shown = panel(page)
    assert shown is not None
    assert "pass, not as now" in shown.text
    page.find_element(By.ID, "close").click()
    assert focused(page) == "#hypercorn/request-in-flight"
    page.execute_script("location.hash = '#granian/workers-reaped'")
    WebDriverWait(page, SECONDS).until(panel)
    assert "ImportError: no module" in page.find_element(By.CSS_SELECTOR, "#panel pre").text
    assert panel(opened("#no/such-cell")) is None


def test_filters(opened: Open) -> None:
    page = opened()
    page.find_element(By.ID, "by-difference").click()
    assert len(rows(page)) == 8
    assert page.find_element(By.ID, "shown").text == "8 of 10 scenarios"
    page.find_element(By.CSS_SELECTOR, ".chips [data-verdict=error]").click()
    assert [row.find_element(By.CSS_SELECTOR, ".id").text for row in rows(page)] == ["workers-reaped"]
    dimmed = page.find_elements(By.CSS_SELECTOR, "#matrix tr:not([hidden]) .cell.dim")
    assert len(dimmed) == 4
    listed = [one for one in page.find_elements(By.CSS_SELECTOR, ".results details") if one.is_displayed()]
    assert [one.get_attribute("id") for one in listed] == ["granian/workers-reaped"]
    page.find_element(By.CSS_SELECTOR, ".chips [data-verdict=error]").click()
    page.find_element(By.ID, "by-difference").click()
    page.find_element(By.CSS_SELECTOR, "#by-group option[value='2']").click()
    assert [row.find_element(By.CSS_SELECTOR, ".id").text for row in rows(page)] == [
        "lifespan-after-tasks",
        "second-signal",
    ]
    groups = page.find_elements(By.CSS_SELECTOR, "#matrix .group")
    assert [one.text for one in groups if one.is_displayed()] == ["Lifespan"]
    page.find_element(By.ID, "by-group").send_keys(Keys.TAB, Keys.TAB)
    page.find_element(By.ID, "by-difference").send_keys(Keys.TAB)
    assert focused(page) == "#lastcall/lifespan-after-tasks", "the grid's stop is a cell that is shown"


def test_the_theme_can_be_chosen_and_stays(opened: Open) -> None:
    paper = "return getComputedStyle(document.documentElement).backgroundColor"
    page = opened(dark=False)
    light = page.execute_script(paper)
    page.find_element(By.ID, "theme").click()
    dark = page.execute_script(paper)
    assert dark != light
    assert page.find_element(By.ID, "theme").text == "Light"
    page.refresh()
    assert page.execute_script(paper) == dark


def test_without_script_everything_is_there(opened: Open) -> None:
    page = opened("#uvicorn==0.21.1/endless-stream-ends", script=False)
    assert not page.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
    assert not page.find_element(By.ID, "theme").is_displayed()
    details = page.find_element(By.ID, "uvicorn==0.21.1/endless-stream-ends")
    assert not details.find_element(By.TAG_NAME, "pre").is_displayed()
    details.find_element(By.TAG_NAME, "summary").click()
    assert details.find_element(By.TAG_NAME, "pre").is_displayed()
    assert details.find_element(By.CSS_SELECTOR, "svg.wide").is_displayed()
    page.find_element(By.CSS_SELECTOR, "a[href='#granian/workers-reaped']").send_keys(Keys.ENTER)
    assert page.current_url.endswith("#granian/workers-reaped")


def test_paper_has_the_details_of_what_did_not_pass(opened: Open) -> None:
    page = opened()
    printed = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") > 5
    assert page.find_elements(By.CSS_SELECTOR, "details[open]") == []


def test_what_is_hostile_does_not_run(browser: Chrome, opened: Open, file: Path) -> None:
    page = opened()
    path = file.with_name("hostile.html")
    path.write_text(html.write(samples.hostile()), "utf-8")
    page.get(path.as_uri())
    page.find_element(By.CSS_SELECTOR, "td a.cell").click()
    shown = panel(page)
    assert shown is not None
    assert "<script>alert(1)</script></style></title>" in shown.text
    assert page.execute_script("return document.scripts.length") == 2
    page.get(file.as_uri())
