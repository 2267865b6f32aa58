"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nas import cli

CONFIG = {
    "data": "digits",
    "space": {"name": "chain", "depths": [1, 2], "widths": [4, 8], "kernels": [1, 3]},
    "strategy": {"name": "regularized_evolution", "population_size": 3, "sample_size": 2},
    "evaluator": ["cost", {"name": "training", "epochs": 1, "data_fraction": 0.2}],
    "objectives": ["maximize accuracy", {"minimize": "macs"}],
    "budget": {"trials": 5},
    "seed": 0,
}


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def nas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs ``nas …`` in an empty folder; gives the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nas", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capfd.readouterr()
        return Result(code, printed.out, printed.err)

    return run


def write(path: Path, **changes: object) -> str:
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(path)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("finished")
    config = write(folder / "run.yaml")
    subprocess.run(
        [sys.executable, "-m", "nas.cli", "search", config, "--out", str(folder / "run")],
        check=True,
        capture_output=True,
    )
    return folder / "run"


def test_search_leaves_a_run_with_its_picture_and_show_reads_it(
    nas: Callable[..., Result], finished: Path
) -> None:
    assert (finished / "front.png").read_bytes().startswith(b"\x89PNG")
    shown = nas("show", str(finished), "--json")
    assert shown.code == 0, shown.err
    document = json.loads(shown.out)
    assert document["trials"] == document["measured"] == 5
    assert document["front"]
    assert set(document["best"]) == {"accuracy", "macs"}
    numbers = [trial["values"]["accuracy"] for trial in document["front"]]
    assert numbers == sorted(numbers, reverse=True)
    table = nas("show", str(finished))
    assert "Pareto front" in table.out
    assert "best accuracy" in table.out


def test_settings_change_the_configuration(nas: Callable[..., Result], tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", strategy="random")
    result = nas(
        "search",
        config,
        "--set",
        "budget.trials=2",
        "--set",
        "evaluator.training.epochs=2",
        "--set",
        "space.widths=[4]",
        "--out",
        "here",
        "--json",
    )
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert document["trials"] == 2
    assert document["spent"]["epochs"] == pytest.approx(2 * 2 * 0.2)
    assert all("width=4" in trial["arch"] for trial in document["front"])


def test_resume_goes_on_with_a_larger_budget_and_then_has_nothing_to_do(
    nas: Callable[..., Result], tmp_path: Path
) -> None:
    config = write(tmp_path / "run.yaml", budget={"trials": 3})
    assert nas("search", config, "--out", "run").code == 0
    before = files(tmp_path / "run")
    result = nas("resume", "run", "--set", "budget.trials=5", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["trials"] == 5
    assert (tmp_path / "run" / "journal.jsonl").read_bytes().startswith(before["journal.jsonl"])
    after = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert nas("resume", "run", "--set", "budget.trials=5").code == 0
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == after


def test_export_and_retrain_write_a_network_that_runs_alone(
    nas: Callable[..., Result], finished: Path, tmp_path: Path
) -> None:
    exported = nas("export", str(finished), "--best", "accuracy", "--out", "exported", "--json")
    assert exported.code == 0, exported.err
    retrained = nas(
        "retrain", str(finished), "--best", "accuracy", "--epochs", "2", "--out", "re", "--json"
    )
    assert retrained.code == 0, retrained.err
    facts = json.loads(retrained.out)
    assert 0.1 < facts["test_accuracy"] <= 1
    for folder in ("exported", "re"):
        ran = subprocess.run(
            [sys.executable, "-I", "model.py"],
            cwd=tmp_path / folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert f"{facts['parameters']:,}" in ran.stdout or str(facts["parameters"]) in ran.stdout
    cost = nas("cost", "chain", "--arch", "exported/architecture.json", "--json")
    assert cost.code == 0, cost.err
    assert json.loads(cost.out) == {
        key: facts[key] for key in ("parameters", "macs", "peak_memory_bytes", "weight_bytes")
    }


def test_cost_is_the_benchmarks_own_network_without_settings(nas: Callable[..., Result]) -> None:
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    result = nas("cost", "nasbench201", "--arch", text, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert set(document) == {"parameters", "macs", "peak_memory_bytes", "weight_bytes"}
    assert document["parameters"] == 73306 + 28000 + 243040
    assert document["macs"] == 7783040 + 3932160 + 35389440
    smaller = nas("cost", "nasbench201", "--arch", text, "--set", "input=3x16x16", "--json")
    assert json.loads(smaller.out)["macs"] < document["macs"]
    assert nas("cost", "chain").code == 0


def test_list_has_a_line_each(nas: Callable[..., Result]) -> None:
    for kind, expected in (
        ("spaces", {"nasbench201", "chain"}),
        ("strategies", {"random", "regularized_evolution"}),
        ("evaluators", {"cost", "training", "staged"}),
        ("executors", {"serial", "ray"}),
        ("datasets", {"digits", "fashion_mnist", "cifar10"}),
    ):
        lines = json.loads(nas("list", kind, "--json").out)
        assert expected <= set(lines)
        assert all(lines.values())


@pytest.mark.parametrize(
    ("changes", "settings", "says"),
    [
        ({"budjet": {"trials": 3}}, [], "unknown key 'budjet': did you mean 'budget'"),
        ({"budget": {"trails": 3}}, [], "did you mean 'trials'"),
        ({"budget": {"trials": 0}}, [], "trials must be above zero, got 0"),
        ({"budget": {"trials": 2.5}}, [], "must be a whole number, got 2.5"),
        ({"space": "chian"}, [], "did you mean 'chain'"),
        ({"space": {"name": "chain", "depth": [1]}}, [], "did you mean 'depths'"),
        ({"strategy": "regularised_evolution"}, [], "did you mean 'regularized_evolution'"),
        ({"evaluator": ["cost", "trainig"]}, [], "did you mean 'training'"),
        ({"data": "digts"}, [], "did you mean 'digits'"),
        ({"objectives": ["maximize acuracy"]}, [], "did you mean 'accuracy'"),
        ({"objectives": ["maximise accuracy"]}, [], "did you mean 'maximize'"),
        ({"objectives": []}, [], "there are no objectives"),
        ({"seed": -1}, [], "seed"),
        ({}, ["strategy.population_size=0"], "population_size must be at least 1, got 0"),
        ({}, ["strategy.sample_size=many"], "strategy.sample_size"),
        ({}, ["strategy.sample_size=true"], "expected a number, got True"),
        ({}, ["strategy.population=3"], "did you mean 'population_size'"),
        ({}, ["evaluator.training.epochs=0"], "epochs"),
        ({}, ["evaluator.trainig.epochs=2"], "did you mean 'training'"),
        ({}, ["executor=rey"], "did you mean 'ray'"),
        ({"objectives": [{"minimize": "macs", "limit": 10}]}, [], "macs is"),
        ({"space": {"name": "chain", "input": [3, 32, 32]}}, [], "(3, 32, 32)"),
        ({"data": "broken_data:make"}, [], "train[7] cannot be loaded: OSError: the file is gone"),
        ({"data": "missing_module:make"}, [], "missing_module"),
    ],
)
def test_bad_input_is_one_message_code_2_and_no_folder(
    nas: Callable[..., Result],
    tmp_path: Path,
    changes: dict[str, object],
    settings: list[str],
    says: str,
) -> None:
    (tmp_path / "broken_data.py").write_text(
        "import torch\n"
        "from nas.data import from_datasets\n\n\n"
        "class Broken(torch.utils.data.Dataset):\n"
        "    def __len__(self):\n"
        "        return 20\n\n"
        "    def __getitem__(self, index):\n"
        "        if index == 7:\n"
        "            raise OSError('the file is gone')\n"
        "        return torch.zeros(1, 8, 8), index % 10\n\n\n"
        "def make():\n"
        "    return from_datasets(Broken())\n"
    )
    config = write(tmp_path / "run.yaml", **changes)
    flags = [flag for setting in settings for flag in ("--set", setting)]
    result = nas("search", config, *flags, "--out", "run")
    sys.modules.pop("broken_data", None)
    assert result.code == 2, result.out + result.err
    assert says in result.err
    assert result.err.count("error:") == 1
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_an_unreadable_configuration_is_refused(nas: Callable[..., Result], tmp_path: Path) -> None:
    assert "cannot be read" in nas("search", "nowhere.yaml").err
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "must hold a mapping" in nas("search", "list.yaml").err
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    result = nas("search", "bad.yaml")
    assert result.code == 2
    assert "is not YAML" in result.err


def test_a_run_folder_is_never_touched_by_what_is_refused(
    nas: Callable[..., Result], finished: Path, tmp_path: Path
) -> None:
    before = files(finished)
    run = str(finished)
    config = write(tmp_path / "run.yaml")
    for arguments, says in (
        (("search", config, "--out", run), "holds a run already"),
        (("resume", run, "--set", "seed=3"), "only budget and executor may change"),
        (("resume", str(tmp_path)), "is not a run folder"),
        (("export", run, "--trial", "99"), "no finished trial 99"),
        (("export", run, "--best", "acuracy"), "did you mean 'accuracy'"),
        (("retrain", run, "--arch", "depth=9"), "not an option of 'depth'"),
        (("retrain", run, "--arch", "depth=1", "--best", "macs"), "give --arch, or --best"),
    ):
        result = nas(*arguments)
        assert result.code == 2, (arguments, result.out, result.err)
        assert says in result.err, (arguments, result.err)
        assert files(finished) == before, arguments


def test_a_failed_trial_cannot_be_exported(nas: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from nas import Measured, Metric\n\n\n"
        "class Failing:\n"
        "    metrics = (Metric('accuracy', 'fraction', 'maximize'),)\n\n"
        "    def evaluate(self, proposal):\n"
        "        raise RuntimeError('no such luck')\n\n"
        "    def planned_epochs(self, fidelity):\n"
        "        return 0.0\n"
    )
    config = write(
        tmp_path / "run.yaml", evaluator="failing:Failing", objectives=["maximize accuracy"]
    )
    assert nas("search", config, "--out", "run").code == 0
    assert "no such luck" in nas("show", "run").out
    failures = json.loads(nas("show", "run", "--json").out)["failures"]
    assert [failure["cause"] for failure in failures] == ["exception"] * 5
    for arguments in (("--trial", "1"), ("--best", "accuracy"), ()):
        result = nas("export", "run", *arguments, "--out", "exported")
        assert result.code == 2
        assert "failed" in result.err or "no trial" in result.err
        assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "cannot read '[]'"),
        ('{"space": "chain/v1"}', "'space' and 'picks'"),
        ('{"space": "chain/v0", "picks": {}}', "chain/v0"),
        ('{"space": "chain/v1", "picks": {"depth": 7}}', "7 is not an option of 'depth'"),
        ('{"space": "chain/v1", "picks": {"depth": true}}', "True"),
        ('{"space": "chain/v1", "picks": {"depht": 1}}', "no pick for 'depth'"),
        ('{"space": "chain/v1", "picks": 3}', "must be pairs"),
    ],
)
def test_an_architecture_edited_into_nonsense_is_refused(
    nas: Callable[..., Result], tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "arch.json").write_text(content)
    result = nas("cost", "chain", "--arch", "arch.json")
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err


def test_an_interrupted_search_says_how_to_go_on(tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", budget={"trials": 10000})
    for stop in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / stop.name
        process = subprocess.Popen(
            [sys.executable, "-m", "nas.cli", "search", config, "--out", str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        deadline = time.monotonic() + 120
        journal = folder / "journal.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"nas resume {folder}" in err
        assert "Traceback" not in err


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; sys.argv = ['nas', '--help']\n"
        "from nas.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ray', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
