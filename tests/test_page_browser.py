"""The page in Chromium: it opens from disk, asks for nothing, and its parts answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reporting import HOSTILE, SPACE, made_up_run

from nas.history import History
from nas.objective import maximize, minimize
from nas.page import run_page
from nas.page.latency import write_measured
from nas.space import format_architecture

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
REPORTED = (maximize("score"), minimize("latency_ms"))
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        made.close()


class Opened:
    """A page that is open, what it asked for, and what it complained of."""

    def __init__(self, browser: Any, file: Path, **settings: Any) -> None:
        given: dict[str, Any] = {
            "viewport": {"width": 1200, "height": 900},
            "color_scheme": "light",
        }
        self.context = browser.new_context(**{**given, **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.page.url]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "it's a run"
    history = made_up_run(folder, metric="latency_ms", objectives=REPORTED)
    some = [trial for trial in history.front(REPORTED) if trial.values]
    write_measured(folder, SPACE, {one.arch: 0.9 * one.values["latency_ms"] for one in some})
    (folder / "report.html").write_text(run_page(folder), encoding="utf-8")
    return folder


@pytest.fixture
def opened(browser: Any, run: Path) -> Iterator[Opened]:
    page = Opened(browser, run / "report.html")
    yield page
    page.close()


def dimmed(page: Any) -> int:
    return int(page.locator("#front-plot circle.dim").count())


def test_pointing_shows_the_architecture_and_clicking_opens_it(opened: Opened, run: Path) -> None:
    page = opened.page
    front = History(run).front(REPORTED)
    best = front[0]
    page.locator(f'#front-plot circle[data-trial="{best.number}"]').hover()
    tip = page.locator("#tip")
    assert f"#{best.number}" in tip.inner_text()
    assert format_architecture(SPACE, best.arch) in tip.inner_text()
    assert tip.locator("svg").count() == 1
    page.locator(f'#front-plot circle[data-trial="{best.number}"]').click()
    dialog = page.locator("dialog[open]")
    assert f"Trial {best.number}" in dialog.inner_text()
    assert dialog.locator("svg.drawing").count() == 1
    assert dialog.locator("table").count() >= 2
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_a_trial_behind_the_front_opens_too(opened: Opened, run: Path) -> None:
    page = opened.page
    shown = {int(c.get_attribute("data-trial")) for c in page.locator("circle.front").all()}
    history = History(run)
    # The worst of all: nothing that is better lies over it.
    measured = [t for t in history.trials if t.values and t.number not in shown]
    number = min(measured, key=lambda trial: trial.values["score"]).number
    page.locator(f'#front-plot circle[data-trial="{number}"]').click()
    arch = format_architecture(SPACE, history.trial(number).arch)
    assert arch in page.locator("dialog[open]").inner_text()


def test_failures_are_text(opened: Opened) -> None:
    assert HOSTILE in opened.page.locator("#failures").inner_text()
    assert opened.page.evaluate("window.broken") is None


def test_brushing_keeps_some_here_and_in_the_front(opened: Opened) -> None:
    page = opened.page
    axis = page.locator("#choices-plot rect.catch").first
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    assert dimmed(page) == 0
    # The lower half of an axis of five options: two or three of them.
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] - 8)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()
    controls = page.locator("#choices-controls")
    kept, measured = map(int, controls.inner_text().split(" measured")[0].split(" of "))
    assert 0 < kept < measured
    assert page.locator("#choices-plot path.way.off").count() == measured - kept
    assert dimmed(page) > 0
    controls.get_by_text("Show all").click()
    assert dimmed(page) == 0
    assert page.locator("#choices-plot path.way.off").count() == 0
    # A click on one option, and again.
    page.mouse.click(middle, box["y"] + 30)
    assert "of" in controls.inner_text()
    page.mouse.click(middle, box["y"] + 30)
    assert "of" not in controls.inner_text()


def test_axes_and_curves_can_be_chosen(opened: Opened) -> None:
    page = opened.page
    page.locator("#front-controls select").first.select_option("finished trials")
    assert "finished trials" in page.locator("#front-plot svg").text_content()
    before = page.locator("#progress-trials path.best").get_attribute("d")
    page.locator("#progress-controls select").select_option("hypervolume of the front")
    assert page.locator("#progress-trials path.best").get_attribute("d") != before
    assert page.locator("#latency-plot circle").count() > 0


def test_light_and_dark(opened: Opened, browser: Any, run: Path) -> None:
    page = opened.page

    def ground(some: Any) -> str:
        return str(some.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground(page)
    page.locator("#theme").click()
    dark = ground(page)
    assert dark != light
    page.locator("#theme").click()
    assert ground(page) == light
    other = Opened(browser, run / "report.html", color_scheme="dark")
    assert ground(other.page) == dark
    assert other.page.locator("#theme").inner_text() == "Light"
    other.close()


def test_on_a_phone_nothing_is_too_wide_and_a_tap_points(browser: Any, run: Path) -> None:
    phone = Opened(
        browser,
        run / "report.html",
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    page = phone.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    point = page.locator("#front-plot circle.front").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.touchscreen.tap(box["x"] + 6, box["y"] + 6)
    assert "Tap again to open" in page.locator("#tip").inner_text()
    edges = page.locator("#tip").bounding_box()
    assert edges["x"] >= 0
    assert edges["x"] + edges["width"] <= 390
    page.touchscreen.tap(box["x"] + 6, box["y"] + 6)
    assert page.locator("dialog[open]").count() == 1
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 390
    phone.close()


def test_without_scripts_the_tables_are_there(browser: Any, run: Path) -> None:
    plain = browser.new_context(java_script_enabled=False)
    page = plain.new_page()
    page.goto((run / "report.html").as_uri())
    assert page.locator("#front table tbody tr").count() > 1
    assert page.locator("#networks svg.drawing").count() > 0
    assert page.locator("button.copy:visible").count() == 0
    plain.close()
