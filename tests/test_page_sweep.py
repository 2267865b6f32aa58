"""The page of a sweep: what its folder says, whatever of it has ended, and in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reporting import SPACE, made_up_run
from test_cli import Result, nas  # noqa: F401  (a fixture)
from test_page import Reader
from test_page_browser import Opened, browser  # noqa: F401  (a fixture)

from nas.components import describe
from nas.errors import DataError
from nas.page import sweep_document, sweep_page
from nas.sweep.files import SWEEP, TABLE, Sweep, SweepSearch, mark_done, write_sweep

STRATEGIES = ("first", "second <b>")
SEEDS = ("0", "1", "2")
OBJECTIVES = ({"maximize": "score"}, {"minimize": "cost"})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six searches, the last of which has not ended; trials of the second strategy fail."""
    folder = tmp_path_factory.mktemp("sweeps") / "my sweep"
    searches = []
    for place, strategy in enumerate(STRATEGIES):
        for seed in SEEDS:
            config = {
                "space": describe(SPACE),
                "strategy": "random",
                "evaluator": "cost",
                "objectives": list(OBJECTIVES),
                "budget": {"trials": 12},
                "seed": int(seed),
            }
            run = f"runs/{place}/{seed}"
            searches.append(SweepSearch(run, {"strategy": strategy, "seed": seed}, config))
            made_up_run(folder / run, 12, failing=place == 1, seed=int(seed))
            if (place, seed) != (1, "2"):
                mark_done(folder / run, config)
    axes = {"strategy": STRATEGIES, "seed": SEEDS}
    write_sweep(folder, Sweep("my sweep", axes, tuple(searches), OBJECTIVES))
    return folder


def test_the_document_is_the_sweeps_table_and_curves(sweep: Path) -> None:
    document = sweep_document(sweep)
    rows = document["table"]["rows"]
    assert [(row["searches"], row["ended"]) for row in rows] == [(3, 3), (3, 2)]
    assert rows[1]["failed"] > 0
    (panel,) = document["panels"]
    assert [curve["name"] for curve in panel["trials"]] == list(STRATEGIES)
    for curve in panel["trials"]:
        assert len(curve["x"]) == len(curve["mean"]) == len(curve["half"])
        assert curve["mean"] == sorted(curve["mean"])
    assert [one["ended"] for one in document["searches"]] == [True] * 5 + [False]
    json.dumps(document, allow_nan=False)


def test_the_page_says_what_has_not_ended_and_keeps_labels_text(sweep: Path) -> None:
    reader = Reader(sweep_page(sweep))
    assert "second <b>" in reader.text
    assert "of 6 ended" in reader.text
    assert "not ended" in reader.text
    assert "nas sweep 'my sweep'.yaml --out" in reader.text
    links = [a["href"] for tag, a in reader.elements if tag == "a"]
    assert links == ["#table", "#curves", "#searches", "#origin", "#commands"]


def test_one_seed_has_no_band_and_no_search_no_curves(sweep: Path, tmp_path: Path) -> None:
    described = json.loads((sweep / SWEEP).read_text())
    described["searches"] = [one for one in described["searches"] if one["labels"]["seed"] == "0"]
    described["axes"]["seed"] = ["0"]
    (tmp_path / SWEEP).write_text(json.dumps(described))
    none = Reader(sweep_page(tmp_path))
    assert "of 2 ended" in none.text
    assert not any(a.get("id") == "curves" for _, a in none.elements)
    (tmp_path / "runs").symlink_to(sweep / "runs")
    (panel,) = sweep_document(tmp_path)["panels"]
    assert [curve["half"] for curve in panel["trials"]] == [[], []]
    Reader(sweep_page(tmp_path))


def test_the_reference_point_is_the_sweeps_own(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / SWEEP).write_bytes((sweep / SWEEP).read_bytes())
    (tmp_path / "runs").symlink_to(sweep / "runs")
    reference = {"score": 0.0, "cost": 100.0}
    (tmp_path / TABLE).write_text(json.dumps({"reference": reference}))
    assert sweep_document(tmp_path)["table"]["reference"] == reference
    (tmp_path / TABLE).write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        sweep_document(tmp_path)


def test_the_command_writes_the_page_and_those_of_the_searches(
    nas: Any,  # noqa: F811
    sweep: Path,
) -> None:
    alone: Result = nas("report", str(sweep), "--json")
    assert alone.code == 0, alone.err
    assert json.loads(alone.out)["pages"] == [str(sweep / "report.html")]
    every: Result = nas("report", str(sweep), "--searches", "--json")
    assert len(json.loads(every.out)["pages"]) == 6
    links = [a["href"] for t, a in Reader((sweep / "report.html").read_text()).elements if t == "a"]
    assert "runs/0/0/report.html" in links
    assert "runs/1/2/report.html" not in links
    assert nas("report", str(sweep), "--measure").code == 2


def test_it_opens_in_a_browser(browser: Any, sweep: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "report.html"
    file.write_text(sweep_page(sweep), encoding="utf-8")
    opened = Opened(browser, file)
    page = opened.page
    assert page.locator("#curves path.curve").count() == 4
    assert page.locator("#curves path.band").count() == 4
    page.locator("#panel-0-trials svg").hover()
    tip = page.locator("#tip").inner_text()
    assert "first" in tip
    assert "±" in tip
    page.locator("li[data-curve='0']").hover()
    assert page.locator("#curves path.curve.away").count() == 2
    opened.close()
    phone = Opened(browser, file, viewport={"width": 390, "height": 844}, is_mobile=True)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    phone.close()
