"""``nas bench show`` and ``convert``; the official benchmark's object; the statistics."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from made_up_tables import Tiny, made_up_table
from scipy import stats
from test_tabular_nasbench201 import written
from typer.testing import CliRunner

from nas.cli import app
from nas.errors import ConfigError, DataError
from nas.space import enumerate_architectures, format_architecture
from nas.tables import load, natsbench, save, statistics
from nas.tables.page import markdown
from nas.testing.toys import FlatSpace
from search_spaces.nasbench201 import NasBench201

TABLE = made_up_table(FlatSpace())


def run(*arguments):
    """What a command prints; its errors are raised."""
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.stdout


# -------------------------------------------------------------------------------- statistics


def test_statistics_are_those_of_the_values():
    found = statistics.document(TABLE)
    assert found["architectures"] == 64
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    facts = found["datasets"]["two"]
    accuracy = TABLE.quantities["validation_accuracy"].values[1]
    means = accuracy.mean(axis=1)
    about = facts["quantities"]["validation_accuracy"]
    assert about["highest"] == about["best"]["value"] == pytest.approx(means[:, -1].max())
    assert about["best"]["picks"] == dict(TABLE.row_picks(int(means[:, -1].argmax())))
    assert about["mean"] == pytest.approx(means[:, -1].mean())
    noise = about["seed_noise"]
    assert noise["mean_std"] == pytest.approx(accuracy[:, :, -1].std(axis=1, ddof=1).mean())
    taus = [
        stats.kendalltau(accuracy[:, a, -1], accuracy[:, b, -1]).statistic
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert noise["kendall_tau"] == pytest.approx(np.mean(taus))
    assert list(about["with_last"]) == ["1", "2", "3"]
    first = stats.spearmanr(means[:, 0], means[:, -1]).statistic
    assert about["with_last"]["1"]["spearman_rho"] == pytest.approx(first)
    loss = facts["quantities"]["validation_loss"]
    assert loss["best"]["value"] == loss["lowest"]
    test = TABLE.quantities["test_accuracy"].values[1].mean(axis=1)[:, -1]
    assert facts["agreement"]["best_test"] == pytest.approx(test.max())
    chosen = test[means[:, -1].argmax()]
    assert facts["agreement"]["test_of_best_validation"] == pytest.approx(chosen)
    hours = TABLE.seconds_per_epoch[1].sum() * 5 / 3600
    assert facts["training_hours"] == pytest.approx(hours)


def test_fronts_are_counted_as_by_comparing_all_pairs():
    rng = np.random.default_rng(0)
    for count in (1, 5, 60):
        first, second = rng.integers(0, 12, size=(2, count)).astype(float)
        points = set(zip(first.tolist(), second.tolist(), strict=True))
        front = [
            p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
        ]
        assert statistics.front_size(first, second) == len(front)
    assert statistics.front_size(np.array([0.0, 1.0]), np.array([np.nan, 1.0])) == 1


def test_means_leave_failed_runs_out():
    values = np.array([[1.0, np.nan, 3.0], [np.nan] * 3])
    assert statistics.mean_of_runs(values)[0] == 2.0
    assert np.isnan(statistics.mean_of_runs(values)[1])


def test_epochs_that_are_shown_double():
    assert [1 + point for point in statistics.shown_points(16)] == [1, 2, 4, 8, 15]
    assert [1 + point for point in statistics.shown_points(2)] == [1]


def test_the_page_shows_what_there_is():
    text = markdown(statistics.document(TABLE))
    for part in ("## one", "## two", "Seed noise", "Kendall τ", "slow_one", "- command: none"):
        assert part in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2 * 4 + 1
    for block in tables:
        assert len({len(line) for line in block.strip().split("\n")}) == 1
    failed = {
        name: replace(q, values=np.full_like(q.values, np.nan))
        for name, q in TABLE.quantities.items()
    }
    text = markdown(statistics.document(replace(TABLE, quantities=failed)))
    assert "nan" not in text
    assert "Best" not in text


# --------------------------------------------------------------------------------- commands


def test_show_prints_a_page_json_or_writes_it(tmp_path):
    save(TABLE, tmp_path / "t.npz")
    text = run("show", tmp_path / "t.npz", "--page", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# nas.testing.toys:FlatSpace: 64 trained architectures")
    assert page.splitlines()[0] in text
    document = json.loads(run("show", tmp_path / "t.npz", "--json"))
    size = (tmp_path / "t.npz").stat().st_size
    with np.load(tmp_path / "t.npz") as arrays:
        assert document.pop("file") == {"bytes": size, "checksum": str(arrays["checksum"])}
    assert f"- bytes: {size}" in page
    assert document == json.loads(json.dumps(statistics.document(load(tmp_path / "t.npz"))))


def test_show_of_no_table_says_so():
    with pytest.raises(ConfigError, match="no table 'nowhere'"):
        run("show", "nowhere")


def test_published_values_are_converted_and_back_they_are_the_same(tmp_path):
    path = written(tmp_path / "published.npz")
    run("convert", path, tmp_path / "compact.npz", "--json")
    one, other = load(path), load(tmp_path / "compact.npz")
    assert np.array_equal(one.picks, other.picks)
    assert one.datasets == other.datasets
    assert one.one_training is other.one_training is False
    for name, quantity in one.quantities.items():
        assert other.quantities[name].epochs == quantity.epochs
        assert other.quantities[name].values == pytest.approx(quantity.values, rel=1e-6)
    assert np.array_equal(one.counts["macs"], other.counts["macs"])
    known = ~np.isnan(one.latency_ms)
    assert np.array_equal(known, ~np.isnan(other.latency_ms))
    assert other.latency_ms[known] == pytest.approx(one.latency_ms[known], rel=1e-3)
    run("convert", path, tmp_path / "part.npz", "--dataset", "cifar100", "--json")
    assert load(tmp_path / "part.npz").datasets == ("cifar100",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("spce: tiny", "unknown key 'spce'.*'space'"),
        ("space: {name: nasbench201, channel: 2}", "space: 'nasbench201' has no argument"),
        ("training: {epoch: 2}", "training: .* has no argument 'epoch'.*'epochs'"),
        ("training: {recipe: {batchsize: 2}}", "training.recipe has no 'batchsize'"),
        ("latency: {rounds: 0}", "repeats must be at least 1"),
        ("runs: 0", "runs: .*greater than or equal to 1"),
        ("data: digts", "data: .*'digits'"),
    ],
)
def test_make_refuses_a_configuration(tmp_path, change, says):
    key = change.split(":")[0]
    lines = {"space": "space: made_up_tables:Tiny", "data": "data: digits", key: change}
    (tmp_path / "c.yaml").write_text("\n".join(lines.values()))
    with pytest.raises(ConfigError, match=says):
        run("make", tmp_path / "c.yaml", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_make_needs_a_space_and_data(tmp_path):
    (tmp_path / "c.yaml").write_text("space: made_up_tables:Tiny")
    with pytest.raises(ConfigError, match="'data' is missing"):
        run("make", tmp_path / "c.yaml")
    assert Tiny().name == "tiny/v1"


# ---------------------------------------------------------------------- the official benchmark


class StandIn:
    """The methods of ``nats_bench``'s object that are used, over made-up values in its units."""

    def __init__(self, count=12):
        space = NasBench201()
        rng = np.random.default_rng(0)
        every = list(enumerate_architectures(space))
        rows = [0, *rng.permutation(np.arange(1, 15625))[: count - 1].tolist()]
        self.texts = [format_architecture(space, every[row]) for row in rows]

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return self.texts[index]

    def value(self, *key):
        return float(np.random.default_rng([hash_of(part) for part in key]).uniform(10, 90))

    def get_more_info(self, index, dataset, iepoch=None, hp="12", is_random=True):
        assert is_random is False
        parts = ["train", "test"] if dataset == "cifar10" else ["train", "test", "valid"]
        info = {
            f"{part}-{what}": self.value(index, dataset, hp, part, what)
            for part in parts
            for what in ("accuracy", "loss")
        }
        return info | {"train-per-time": self.value(dataset, index), "train-all-time": None}

    def get_cost_info(self, index, dataset, hp="12"):
        latency = None if index == 5 else 0.001 * (index + 1)
        return {"flops": 10.25 + index, "params": 0.073306 + index, "latency": latency}


def hash_of(part):
    return part if isinstance(part, int) else int.from_bytes(str(part).encode()[:6], "big")


def test_the_official_object_is_converted(tmp_path):
    api = StandIn()
    done = []
    table = natsbench.converted(api, on_architecture=done.append)
    assert done == list(range(1, 13))
    assert table.datasets == natsbench.DATASETS
    space = NasBench201()
    for row, text in enumerate(api.texts):
        assert table.row_picks(row) == space.parse(text).picks
    for column, dataset in enumerate(table.datasets):
        for row in range(12):
            for point, hp in enumerate(("12", "200")):
                values = {n: q.values[column, row, 0, point] for n, q in table.quantities.items()}
                # cifar10's networks saw all images: the validation is that of cifar10-valid.
                validated = "cifar10-valid" if dataset == "cifar10" else dataset
                assert values == {
                    "validation_accuracy": api.value(row, validated, hp, "valid", "accuracy")
                    * 0.01,
                    "validation_loss": api.value(row, validated, hp, "valid", "loss"),
                    "test_accuracy": api.value(row, dataset, hp, "test", "accuracy") * 0.01,
                    "test_loss": api.value(row, dataset, hp, "test", "loss"),
                    "train_loss": api.value(row, dataset, hp, "train", "loss"),
                }
            assert table.seconds_per_epoch[column, row, 0] == api.value(dataset, row)
            assert table.counts["parameters"][column, row] == 73306 + 10**6 * row
            assert table.counts["macs"][column, row] == 10_250_000 + 10**6 * row
    assert not table.one_training
    latency = table.latency_ms[0]
    # Of the cell without any operation, and of one that was not measured, there is none.
    assert np.isnan(latency[[0, 5]]).all()
    assert latency[1] == pytest.approx(2.0)
    save(table, tmp_path / "t.npz")
    assert load(tmp_path / "t.npz").quantities["test_loss"].epochs == (12, 200)


def test_convert_opens_the_official_files_with_the_official_package(tmp_path, monkeypatch):
    calls = []

    def create(*arguments, **options):
        calls.append((arguments, options))
        return StandIn()

    package = types.ModuleType("nats_bench")
    package.create = create
    monkeypatch.setitem(sys.modules, "nats_bench", package)
    (tmp_path / "NATS-tss-simple").mkdir()
    (tmp_path / "NATS-tss.pickle.pbz2").write_bytes(b"")
    for source in ("NATS-tss-simple", "NATS-tss.pickle.pbz2"):
        run("convert", tmp_path / source, tmp_path / "t.npz", "--dataset", "cifar100", "--json")
        assert load(tmp_path / "t.npz").datasets == ("cifar100",)
    assert calls == [
        ((str(tmp_path / "NATS-tss-simple"), "tss"), {"fast_mode": True, "verbose": False}),
        ((str(tmp_path / "NATS-tss.pickle.pbz2"), "tss"), {"fast_mode": False, "verbose": False}),
    ]


def test_convert_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    with pytest.raises(ConfigError, match="there is no"):
        run("convert", tmp_path / "nowhere", tmp_path / "t.npz")
    with pytest.raises(ConfigError, match="pip install nats_bench"):
        run("convert", tmp_path, tmp_path / "t.npz")


def test_what_the_official_object_should_not_hold_is_named():
    with pytest.raises(ConfigError, match="'cifar100'"):
        natsbench.converted(StandIn(), ["cifar1000"])
    api = StandIn()
    api.texts[3] = "|none~0|+|none~0|none~1|"
    with pytest.raises(DataError, match=r"architecture 3: .* is not a cell of 6 edges"):
        natsbench.converted(api)
    api = StandIn()
    api.texts[3] = api.texts[3].replace("~0|+", "s~0|+", 1)
    with pytest.raises(DataError, match="architecture 3: no operation"):
        natsbench.converted(api)
    api = StandIn()
    api.get_cost_info = lambda index, dataset, hp: {}
    with pytest.raises(DataError, match="architecture 0: KeyError"):
        natsbench.converted(api)
