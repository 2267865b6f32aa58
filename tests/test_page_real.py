"""The pages of the quickstart, of the hardware-aware search and of a sweep, in Chromium."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import Result, nas  # noqa: F401  (a fixture)
from test_page_browser import Opened, browser  # noqa: F401  (a fixture)
from torch.utils.data import Subset

from nas.data import digits

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def looked_at(browser: Any, file: Path) -> str:  # noqa: F811
    """Opens a page wide and narrow, light and dark; gives its text."""
    for settings in ({}, {"color_scheme": "dark"}, PHONE):
        opened = Opened(browser, file, **settings)
        width = opened.page.evaluate("innerWidth")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator(".plot svg").count() > 1
        text = str(opened.page.locator("body").inner_text())
        opened.close()
    return text


@pytest.mark.slow
def test_the_quickstart(nas: Any, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    run = str(tmp_path / "quickstart")
    config = str(EXPERIMENTS / "quickstart.yaml")
    ran: Result = nas("search", config, "--out", run, "--set", "budget.trials=12")
    assert ran.code == 0, ran.err
    assert nas("report", run).code == 0
    text = looked_at(browser, tmp_path / "quickstart" / "report.html")
    assert f"nas export {run} --trial" in text
    assert f"nas retrain {run} --best accuracy --epochs 40" in text
    assert f"nas resume {run} --set budget.trials=24" in text


@pytest.mark.slow
def test_a_sweep_on_a_table(nas: Any, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    run = str(tmp_path / "sweep")
    fewer = ["axes.table={digits: {}}", "search.budget.trials=25", "axes.seed=[0, 1]"]
    config = str(EXPERIMENTS / "sweep.yaml")
    ran: Result = nas("sweep", config, "--out", run, "--executor", "serial", "--set", *fewer)
    assert ran.code == 0, ran.err
    assert nas("report", run, "--searches").code == 0
    assert "NSGA-II" in looked_at(browser, tmp_path / "sweep" / "report.html")
    pages = sorted((tmp_path / "sweep" / "runs").rglob("report.html"))
    assert len(pages) == 8
    looked_at(browser, pages[0])


@pytest.mark.slow
def test_the_hardware_aware_search(
    nas: Any,  # noqa: F811
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The experiment itself on a space and data that take seconds: its run has both latencies."""
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import hardware_aware
    from test_latency_experiments import small

    data = replace(digits(), source=None)
    data = replace(data, train=Subset(data.train, range(200)))
    monkeypatch.setattr(hardware_aware, "fashion_mnist", lambda root: data)
    monkeypatch.setattr(hardware_aware, "mobile", small)
    monkeypatch.setattr(hardware_aware, "SIZES", [(25, 25)])
    hardware_aware.main(
        [
            "--budgets", "1000", "--trials", "6", "--population", "2", "--sample", "1",
            "--images", "60", "--epochs", "1", "--final-images", "60", "--final-epochs", "1",
            "--seeds", "1", "--test-images", "50", "--seconds", "0.05",
            "--out", str(tmp_path / "run"), "--page", str(tmp_path / "page.md"),
        ]
    )  # fmt: skip
    run = tmp_path / "run" / "search_1000"
    assert nas("report", str(run)).code == 0
    assert "measured, ms" in looked_at(browser, run / "report.html")
    assert nas("report", str(run), "--measure").code == 0
    assert "Off by" in looked_at(browser, run / "report.html")
