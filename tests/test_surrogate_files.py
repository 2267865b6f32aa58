"""Surrogates in files: equal to the bit when they come back, and refused where they are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from surrogate_workloads import exactly, predictions, toy_measurements

from nas.errors import ConfigError, DataError, NasError
from nas.predictor import fit_surrogate, load_surrogate, save_surrogate
from nas.predictor.files import space_digest
from nas.space import sample
from nas.tables.files import checksum, find
from nas.testing.process import in_another_process
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.nasbench201 import NasBench201


@pytest.mark.parametrize("name", ["ridge", "gp_path", "forest", "boosting", "mlp", "graph"])
def test_loaded_it_predicts_equal_to_the_bit_also_in_another_process(tmp_path, name):
    small = {
        "mlp": {"members": 2, "layers": 2, "epochs": 2},
        "graph": {"members": 2, "units": 6, "hidden": 6, "epochs": 2},
        "boosting": {"trees": 10},
    }
    space = NasBench201()
    measured = toy_measurements(space, 30)
    surrogate = fit_surrogate(measured, name, folds=2, settings=small.get(name))
    path = tmp_path / "surrogate.npz"
    assert save_surrogate(surrogate, path) == path.stat().st_size
    archs = [sample(space, np.random.default_rng(i)) for i in range(5)]
    said = surrogate.predict(archs)
    expected = exactly(said)
    again = load_surrogate(path, space)
    assert predictions(path, 5) == expected
    assert again.judge(archs) == surrogate.judge(archs)
    assert again.validation.agreement == surrogate.validation.agreement
    np.testing.assert_array_equal(again.validation.said.std, surrogate.validation.said.std)
    if name == "forest":
        found = in_another_process("surrogate_workloads:predictions", path=str(path), count=5)
        assert found == expected
    save_surrogate(again, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "surrogate.npz"
    save_surrogate(fit_surrogate(toy_measurements(FlatSpace(), 40), "forest"), path)
    return path


def changed(path, target, **arrays):
    """A copy of the file with other arrays and a checksum that fits them."""
    with np.load(path) as found:
        content = {**{name: found[name] for name in found.files}, **arrays}
    content = {name: array for name, array in content.items() if array is not None}
    if "checksum" not in arrays:
        content["checksum"] = np.array(checksum(content))
    np.savez(target, **content)
    return target


def test_damaged_and_foreign_files_are_refused(stored, tmp_path):
    whole = stored.read_bytes()
    target = tmp_path / "damaged.npz"
    for content in (b"", b"no archive", whole[: len(whole) // 2], b"PK\x03\x04" + whole[4:60]):
        target.write_bytes(content)
        with pytest.raises(DataError, match=r"damaged\.npz"):
            load_surrogate(target)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    target.write_bytes(flipped)
    with pytest.raises(DataError, match=r"damaged\.npz"):
        load_surrogate(target)
    with pytest.raises(ConfigError, match="there is no surrogate"):
        load_surrogate(tmp_path / "missing.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        load_surrogate(tmp_path / "one.npy")
    with pytest.raises(DataError, match="no surrogate: its format is 'nasforge-table/1'"):
        load_surrogate(find("digits"))
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="no readable surrogate"):
        load_surrogate(pickled)


def test_what_is_in_the_file_is_checked(stored, tmp_path):
    target = tmp_path / "changed.npz"
    with np.load(stored) as found:
        about = json.loads(str(found["about"]))
        feature = found["model/feature"].copy()
    for arrays, words in (
        ({"format": np.array("nasforge-surrogate/9")}, "another version"),
        ({"values": np.zeros(3), "checksum": np.array("of the old")}, "does|do not give"),
        ({"model/feature": None}, "KeyError"),
        ({"about": np.array("{}")}, "KeyError"),
        ({"about": np.array("no json")}, "JSONDecodeError"),
    ):
        changed(stored, target, **arrays)
        with pytest.raises(DataError, match=words):
            load_surrogate(target)
    feature[0] = 10**6
    with pytest.raises(NasError, match="trees"):
        load_surrogate(changed(stored, target, **{"model/feature": feature}))
    about["model"] = "oracle"
    with pytest.raises(ConfigError, match="'oracle'"):
        load_surrogate(changed(stored, target, about=np.array(json.dumps(about))))


def test_another_space_is_refused(stored, tmp_path):
    with pytest.raises(ConfigError, match=r"for 'flat/v1', not for 'nested"):
        load_surrogate(stored, NestedSpace())
    with pytest.raises(ConfigError, match=r"with classes 3 \(here 7\)"):
        load_surrogate(stored, FlatSpace(classes=7))
    with np.load(stored) as found:
        about = json.loads(str(found["about"]))
    about["space_digest"] = space_digest(NestedSpace())
    target = changed(stored, tmp_path / "x.npz", about=np.array(json.dumps(about)))
    with pytest.raises(ConfigError, match="other choices or options"):
        load_surrogate(target, FlatSpace())
