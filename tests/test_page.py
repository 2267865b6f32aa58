"""The page of a run: what it holds, that nothing in it can break out, and what it leaves out."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reporting import HOSTILE, OBJECTIVES, SPACE, Moody, made_up_run
from test_cli import Result, nas  # noqa: F401  (a fixture)

from nas.budget import Budget
from nas.errors import ConfigError, DataError
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.objective import maximize, minimize
from nas.page import run_document, run_page
from nas.page.latency import FILE, write_measured
from nas.page.markup import embedded, short, table
from nas.page.run_sections import page_of
from nas.page.trials import MOST_DRAWN
from nas.search import search
from nas.space import format_architecture, parse
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain
from strategies.random_search import RandomSearch


class Reader(HTMLParser):
    """What a browser makes of a page: its elements, whatever it would fetch, its scripts."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "a run"
    made_up_run(folder)
    return folder


@pytest.fixture(scope="module")
def document(run: Path) -> dict[str, Any]:
    return run_document(run)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return run_page(run)


def test_the_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    reader = Reader(page)
    for tag, attributes in reader.elements:
        assert tag not in ("img", "iframe", "object", "embed", "audio", "video")
        assert attributes.get("src") is None
        link = attributes.get("href")
        assert link is None or link.startswith("#") or link == "data:,"
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    policy = next(a["content"] for t, a in reader.elements if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy


def test_messages_stay_text(page: str) -> None:
    reader = Reader(page)
    assert len(reader.scripts) == 2
    assert HOSTILE in reader.text
    assert not any("invalid" in str(attributes) for _, attributes in reader.elements)
    document = json.loads(reader.scripts[0])
    assert any(HOSTILE in why for why in document["trials"]["why"])


def test_what_is_embedded_cannot_end_its_element() -> None:
    given = {"a": "</script><!--", "b": ["\u2028", "\udcff", "é&"]}
    written = embedded(given)
    assert not set("<>&") & set(written)
    assert written.isascii()
    assert json.loads(written) == given
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(float("nan"))
    assert "<b>" not in table(["<b>"], [["x"]])


def test_sections_in_order_and_reachable(page: str) -> None:
    reader = Reader(page)
    ids = [attributes["id"] for tag, attributes in reader.elements if tag == "section"]
    assert ids == [
        "front", "progress", "choices", "importance", "networks", "failures", "origin", "commands",
    ]  # fmt: skip
    links = [a["href"] for tag, a in reader.elements if tag == "a" and "data-trial" not in a]
    assert links == [f"#{key}" for key in ids]


def test_the_document_is_what_the_journal_says(run: Path, document: dict[str, Any]) -> None:
    history = History(run)
    front = history.front(OBJECTIVES)
    counts = document["counts"]
    assert (counts["trials"], counts["failed"], counts["infeasible"]) == (44, 5, 4)
    assert document["front"] == [trial.number for trial in front]
    assert counts["best"]["score"] == [front[0].number, front[0].values["score"]]
    trials = document["trials"]
    for place, number in enumerate(trials["number"]):
        trial = history.trial(number)
        assert trials["text"][place] == format_architecture(SPACE, trial.arch)
        options = [
            document["choices"][choice]["options"][pick]
            for choice, pick in enumerate(trials["picks"][place])
        ]
        assert options == list(trial.arch.as_dict().values())
        assert (trials["values"]["score"][place] is None) == (trials["status"][place] == 2)
    assert trials["order"] == list(range(1, 45))
    assert trials["elapsed"][-1] == pytest.approx(history.spent.seconds, abs=1e-3)


def test_progress_is_the_best_so_far_over_trials_and_time(
    run: Path, document: dict[str, Any]
) -> None:
    history = History(run)
    score, cost, volume = document["progress"]
    assert (score["name"], cost["name"]) == ("score", "cost")
    best = float("-inf")
    seconds = 0.0
    expected = []
    for place, trial in enumerate(history.trials, start=1):
        seconds += trial.cost.seconds
        if trial.values.get("score", best) > best:
            best = trial.values["score"]
            expected.append([place, pytest.approx(seconds, abs=1e-3), pytest.approx(best)])
    assert [step[:3] for step in score["steps"]][: len(expected)] == expected
    assert score["steps"][-1][0] == 44
    assert all(a[2] > b[2] for a, b in zip(cost["steps"], cost["steps"][1:-1], strict=False))
    assert volume["steps"][-1][2] == 1.0
    shares = [step[2] for step in volume["steps"]]
    assert shares == sorted(shares)


def test_failures_are_grouped_by_what_differs_in_numbers_only(
    document: dict[str, Any], page: str
) -> None:
    failures = document["failures"]
    (cause,) = failures["causes"]
    assert cause["trials"] == [3, 13, 23, 33, 43]
    assert "reporting.py" in cause["traceback"]
    (limit,) = failures["infeasible"]
    assert len(limit["trials"]) == 4
    assert sum(map(sum, failures["over_time"])) == 44
    assert "traceback of trial 3" in page


def test_networks_of_the_front_are_drawn_with_layers_and_commands(
    run: Path, document: dict[str, Any], page: str
) -> None:
    history = History(run)
    for network in document["networks"]:
        assert parse(SPACE, network["arch"]) == history.trial(network["number"]).arch
        assert network["drawing"].startswith("<svg")
        assert network["layers"][0]["path"] == ""
        assert network["problem"] == ""
    assert f"nas retrain '{run}' --best" not in page  # it has no data to train on
    assert f"nas resume &#x27;{run}&#x27;" in page


def test_settings_and_machine_are_told(document: dict[str, Any]) -> None:
    origin = document["origin"]
    assert origin["parts"]["strategy"] == "random"
    assert origin["parts"]["space"].startswith("nasbench201 (channels 2, cells 1")
    assert origin["parts"]["budget"] == "trials 40"
    assert {"host", "cores", "python", "torch"} <= set(origin["machine"])


def test_a_run_of_an_earlier_version_or_another_machine_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    history = made_up_run(folder, 4)
    assert history.header is not None
    for machine in (None, {"host": "elsewhere"}):
        continued = History(folder)
        assert continued.header is not None
        continued.header["machine"] = machine
        if machine is None:
            del continued.header["machine"]
        strategy = RandomSearch(SPACE, OBJECTIVES, 0)
        left = search(strategy, Moody(SPACE), Serial(), Budget(trials=4), continued)
        assert list(left) == []
    text = (folder / JOURNAL).read_text()
    assert text.startswith('{"event":"run"')


def test_many_trials_are_thinned_but_for_those_that_matter(tmp_path: Path) -> None:
    history = made_up_run(tmp_path / "run", 1300, failing=False)
    document = run_document(tmp_path / "run")
    trials = document["trials"]
    assert len(trials["number"]) == MOST_DRAWN
    assert trials["of"] == 1300
    assert set(document["front"]) <= set(trials["number"])
    bests = {step[3] for curve in document["progress"][:2] for step in curve["steps"]}
    assert bests <= set(trials["number"])
    assert trials["number"][-1] > 1290
    assert trials["elapsed"][-1] <= history.spent.seconds
    page = page_of(document)
    assert f"{MOST_DRAWN:,} of 1,300 trials are drawn" in page
    assert len(page) < 1_000_000


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace(), Chain(input=(1, 8, 8))])
def test_spaces_of_all_kinds(tmp_path: Path, space: Any) -> None:
    made_up_run(tmp_path / "run", 25, space)
    document = run_document(tmp_path / "run")
    assert all(not network["problem"] for network in document["networks"])
    Reader(page_of(document))


def test_one_objective_and_three(tmp_path: Path) -> None:
    for count in (1, 2):
        objectives = [maximize("score", limit=2.0), minimize("cost")][:count]
        made_up_run(tmp_path / str(count), 10, objectives=objectives)
        reader = Reader(run_page(tmp_path / str(count)))
        assert ("Pareto front" in reader.text) == (count == 2)


def test_a_run_without_any_measured_trial(tmp_path: Path) -> None:
    made_up_run(tmp_path / "run", 5, objectives=[maximize("score", limit=1e9)])
    page = run_page(tmp_path / "run")
    assert "No trial was measured within the limits." in Reader(page).text
    history = History(tmp_path / "none")
    strategy = RandomSearch(SPACE, OBJECTIVES, 0)
    for _ in search(strategy, Moody(SPACE), Serial(), Budget(trials=1), history):
        break
    empty = tmp_path / "empty"
    empty.mkdir()
    first = (tmp_path / "none" / JOURNAL).read_bytes().splitlines(keepends=True)[0]
    (empty / JOURNAL).write_bytes(first)
    Reader(run_page(empty))


def test_a_space_of_a_script_leaves_out_what_needs_it(tmp_path: Path) -> None:
    class Own(FlatSpace):
        """One that no file can name."""

    made_up_run(tmp_path / "run", 25, Own())
    document = run_document(tmp_path / "run")
    assert document["problem"]
    assert document["networks"] == []
    assert document["ways"] == {"built": False, "trains": False, "resumes": False}
    text = Reader(page_of(document)).text
    assert "run the script again to go on" in text


def test_measured_latencies_stand_beside_the_predicted(tmp_path: Path) -> None:
    objectives = [maximize("score"), minimize("latency_ms")]
    history = made_up_run(tmp_path / "run", 10, objectives=objectives, metric="latency_ms")
    assert run_document(tmp_path / "run")["latency"] is None
    some = [trial for trial in history.trials if trial.values][:4]
    write_measured(
        tmp_path / "run", SPACE, {one.arch: 0.8 * one.values["latency_ms"] for one in some}
    )
    found = run_document(tmp_path / "run")["latency"]
    assert [row["number"] for row in found["rows"]] == [one.number for one in some]
    assert found["mape"] == pytest.approx(0.25)
    assert found["bias"] == pytest.approx(0.25)
    text = Reader(page_of(run_document(tmp_path / "run"))).text
    assert "Off by 25.0% on the mean, +25.0% with the sign" in text
    (tmp_path / "run" / FILE).write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        run_document(tmp_path / "run")


def test_a_measurement_that_nothing_predicted_is_left_out(tmp_path: Path) -> None:
    history = made_up_run(tmp_path / "run", 3, failing=False)
    write_measured(tmp_path / "run", SPACE, {history.trials[0].arch: 1.0})
    assert run_document(tmp_path / "run")["latency"] is None


def test_numbers_are_short_where_they_are_large() -> None:
    assert [short(v) for v in (0.0591, 12.0, 950_000.0, 44_721_359.0, 2e9)] == [
        "0.0591", "12", "950k", "44.7M", "2G",
    ]  # fmt: skip


def test_the_command_writes_the_page(nas: Any, run: Path, tmp_path: Path) -> None:  # noqa: F811
    target = tmp_path / "page.html"
    found: Result = nas("report", str(run), "--out", str(target), "--json")
    assert found.code == 0, found.err
    printed = json.loads(found.out)
    assert printed["page"] == str(target)
    assert printed["bytes"] == target.stat().st_size
    refused: Result = nas("report", str(tmp_path))
    assert refused.code == 2
    assert "it has no journal.jsonl" in refused.err
    assert nas("report", str(run), "--out", "page.pdf").code == 2
    measured: Result = nas("report", str(run), "--measure")
    assert "looks no latency up" in measured.err


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        run_page(tmp_path)
