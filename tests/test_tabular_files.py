"""Tables on disk: what is written is read again, and what is damaged is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_tables import made_up_table

from nas.architecture import Architecture
from nas.components import create
from nas.errors import ConfigError, DataError, NasError
from nas.tables import find, load, save, shipped
from nas.tables.files import checksum, selected
from nas.testing.toys import FlatSpace, NestedSpace

TABLE = made_up_table(FlatSpace())


def arrays_of(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def written(path, arrays, *, again=True):
    """Writes arrays; with a checksum that fits them, so that only what else is wrong is found."""
    if again:
        arrays = arrays | {"checksum": np.array(checksum(arrays))}
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("table", [TABLE, made_up_table(NestedSpace(), runs=1)])
def test_what_is_written_is_read(table, tmp_path):
    size = save(table, tmp_path / "t.npz")
    assert (tmp_path / "t.npz").stat().st_size == size
    found = load(tmp_path / "t.npz")
    for field in ("space", "labels", "options", "datasets", "seeds", "devices", "facts"):
        assert getattr(found, field) == getattr(table, field)
    assert np.array_equal(found.picks, table.picks)
    assert (found.picks == -1).any() == (table.labels[0] == "depth")
    for name, counts in table.counts.items():
        assert np.array_equal(found.counts[name], counts)
    for name, quantity in table.quantities.items():
        assert found.quantities[name].metric == quantity.metric
        assert found.quantities[name].epochs == quantity.epochs
        assert found.quantities[name].values == pytest.approx(quantity.values, rel=1e-3)
    assert found.seconds_per_epoch == pytest.approx(table.seconds_per_epoch, rel=1e-3)
    assert found.latency_ms == pytest.approx(table.latency_ms, rel=1e-3)


def test_writing_again_gives_the_same_bytes(tmp_path):
    save(TABLE, tmp_path / "one.npz")
    save(load(tmp_path / "one.npz"), tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_fractions_keep_single_precision_and_values_out_of_range_are_not_halved(tmp_path):
    slow = replace(TABLE, seconds_per_epoch=TABLE.seconds_per_epoch * 1e6)
    save(slow, tmp_path / "t.npz")
    arrays = arrays_of(tmp_path / "t.npz")
    assert arrays["validation_accuracy"].dtype == np.float32
    assert arrays["validation_loss"].dtype == np.float16
    assert arrays["seconds_per_epoch"].dtype == np.float32


def test_some_data_sets_can_be_taken(tmp_path):
    part = selected(TABLE, ["two"])
    assert part.datasets == ("two",)
    assert np.array_equal(part.counts["macs"][0], TABLE.counts["macs"][1])
    assert selected(TABLE, None) is TABLE
    with pytest.raises(ConfigError, match="'two'"):
        selected(TABLE, ["tow"])


# ---------------------------------------------------------------------------------- damage


@pytest.fixture
def good(tmp_path):
    save(TABLE, tmp_path / "good.npz")
    return arrays_of(tmp_path / "good.npz")


def test_a_bit_that_flipped_is_noticed(good, tmp_path):
    for name in ("picks", "validation_accuracy", "latency_ms", "about", "macs"):
        changed = dict(good)
        array = good[name].copy()
        if name == "about":
            array = np.array(str(array).replace("slow_one", "slow_two"))
        else:
            array.flat[3] = array.flat[3] + 1
        changed[name] = array
        path = written(tmp_path / "t.npz", changed, again=False)
        with pytest.raises(DataError, match=r"t\.npz is damaged.*checksum"):
            load(path)


def test_every_array_is_needed(good, tmp_path):
    for name in good:
        path = written(
            tmp_path / "t.npz", {k: v for k, v in good.items() if k != name}, again=False
        )
        with pytest.raises(DataError, match=rf"t\.npz.*'{name}'|checksum"):
            load(path)
        if name != "checksum":
            path = written(tmp_path / "t.npz", {k: v for k, v in good.items() if k != name})
            with pytest.raises(DataError, match=f"'{name}'"):
                load(path)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("format", lambda a: np.array("nasforge-table/9"), "'nasforge-table/9', expected"),
        ("validation_accuracy", lambda a: a[:, :, :, :-1], "validation_accuracy.*shape.*expected"),
        ("macs", lambda a: a[:, 1:], "'macs' has the shape"),
        ("latency_ms", lambda a: a[:1], "'latency_ms' has the shape"),
        ("seconds_per_epoch", lambda a: -a, "below zero"),
        ("seconds_per_epoch", lambda a: a[0], "'seconds_per_epoch' has the shape"),
        ("picks", lambda a: a + 1, "'picks' of 'width' must be from -1 to 3, got 4"),
        ("picks", lambda a: np.where(np.arange(len(a))[:, None] == 1, a[0], a), "twice"),
        ("picks", lambda a: a[:, :2], "'picks' has the shape"),
        ("about", lambda a: np.array("{}"), "'about' is not what"),
        ("about", lambda a: np.array("nonsense"), "'about' is not what"),
    ],
)
def test_arrays_that_do_not_fit_are_named(good, tmp_path, name, change, says):
    path = written(tmp_path / "t.npz", good | {name: change(good[name])})
    with pytest.raises(DataError, match=says) as error:
        load(path)
    assert "t.npz" in str(error.value)


def test_epochs_must_rise(good, tmp_path):
    about = json.loads(str(good["about"]))
    about["quantities"][0]["epochs"] = [1, 3, 2, 5]
    path = written(tmp_path / "t.npz", good | {"about": np.array(json.dumps(about))})
    with pytest.raises(DataError, match="epochs of validation_accuracy must rise"):
        load(path)


def test_files_of_another_kind_are_named(tmp_path, good):
    (tmp_path / "text.npz").write_text("not a table")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", picks=np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    content = written(tmp_path / "whole.npz", good).read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    for name in ("text.npz", "empty.npz", "single.npy", "pickled.npz", "other.npz", "cut.npz"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            load(tmp_path / name)
    with pytest.raises(ConfigError, match=r"missing\.npz"):
        load(tmp_path / "missing.npz")


def test_a_quantity_cannot_take_the_name_of_another_array(tmp_path):
    quantities = {"picks": TABLE.quantities["validation_loss"]}
    with pytest.raises(NasError, match="named 'picks'"):
        save(replace(TABLE, quantities=quantities), tmp_path / "t.npz")


# ---------------------------------------------------------------------------- what comes along


def test_the_table_of_digits_comes_along():
    path = shipped()["digits"]
    assert find("digits") == path
    assert path.stat().st_size < 500_000
    table = load("digits")
    assert (len(table), table.datasets, table.seeds) == (729, ("digits",), (0, 1, 2))
    assert table.quantities["validation_accuracy"].epochs == tuple(range(1, 17))
    for name, quantity in table.quantities.items():
        assert not np.isnan(quantity.values).any(), name
    assert table.facts["command"] == "nas bench make digits_nasbench201.yaml"
    space = create("spaces", dict(table.space), "space")
    assert len(dict(table.rows(space))) == 729
    for row in range(0, 729, 91):
        costs = space.parameters_and_macs(Architecture(space.name, table.row_picks(row)))
        assert costs == (table.counts["parameters"][0, row], table.counts["macs"][0, row])
