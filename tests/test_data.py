"""Data sets: what is read, and what is refused before any work."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from nas import datafiles
from nas.components import OPAQUE, create, describe
from nas.data import Data, check_fits, cifar10, digits, fashion_mnist, from_datasets, split
from nas.errors import ConfigError, DataError
from search_spaces.nasbench201 import NasBench201

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


# --------------------------------------------------------------------------- digits


def test_digits_is_all_of_it_split_by_class():
    data = digits()
    assert (data.input, data.classes) == ((1, 8, 8), 10)
    assert len(data.train) + len(data.test) == 1797
    held = torch.bincount(data.test.labels) / (
        torch.bincount(data.train.labels) + torch.bincount(data.test.labels)
    )
    assert torch.all((held - 0.2).abs() < 0.01)


def test_digits_is_the_same_every_time_and_normalised():
    one, other = digits(), digits()
    assert torch.equal(one.test.pixels, other.test.pixels)
    images = torch.stack([image for image, _ in one.train])
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std(unbiased=False)) - 1) < 1e-4
    image, label = one.train[3]
    assert (image.dtype, type(label)) == (torch.float32, int)


def test_preprocessing_is_what_was_done():
    data = digits()
    facts = json.loads(json.dumps(data.preprocessing))
    numbers = {name: facts[name][0] for name in ("mean", "std")} | {"scale": facts["scale"]}
    expected = eval(facts["formula"], numbers | {"pixel": data.test.pixels[5].float()})
    torch.testing.assert_close(data.test[5][0], expected)


def test_a_batch_is_its_items():
    data = digits()
    images, labels = data.train.batch(torch.tensor([4, 0, 9]))
    for row, index in enumerate((4, 0, 9)):
        assert torch.equal(images[row], data.train[index][0])
        assert int(labels[row]) == data.train[index][1]
    with pytest.raises(IndexError):
        data.train[len(data.train)]


def test_data_is_light_to_pickle():
    data = digits()
    content = pickle.dumps(data)
    assert len(content) < 1.5 * 1797 * (64 + 8) + 4000
    assert torch.equal(pickle.loads(content).train.pixels, data.train.pixels)


# -------------------------------------------------------------------- Fashion-MNIST


def _idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_files():
    rng = np.random.default_rng(0)
    contents = {}
    for part, count in (("train", 30), ("t10k", 10)):
        contents[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        contents[f"{part}-labels-idx1-ubyte"] = np.arange(count) % 10
    return contents


def _write(folder, files, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        content = _idx(array)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_fashion_mnist_reads_every_layout(tmp_path, idx_files, zipped, inside):
    _write(tmp_path / inside, idx_files, zipped)
    data = fashion_mnist(tmp_path)
    expected = idx_files["train-images-idx3-ubyte"][7]
    assert np.array_equal(data.train.pixels[7, 0].numpy(), expected)
    assert data.test[3][1] == 3
    assert (data.input, len(data.train), len(data.test)) == ((1, 28, 28), 30, 10)


@pytest.mark.skipif(not DEBIAN.exists(), reason=f"{DEBIAN} is not there: dataset-fashion-mnist")
def test_fashion_mnist_of_debian():
    data = fashion_mnist()
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert torch.equal(torch.bincount(data.train.labels), torch.full((10,), 6000))
    # The published statistics of the training set.
    assert data.preprocessing["mean"][0] == pytest.approx(0.2860, abs=1e-4)
    assert data.preprocessing["std"][0] == pytest.approx(0.3530, abs=1e-4)


def test_missing_files_are_named_with_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*dataset-fashion-mnist") as error:
        fashion_mnist(tmp_path)
    assert str(tmp_path) in str(error.value)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "is damaged"),
        (_flip_a_byte, "is damaged"),
        (lambda path: path.write_bytes(b"nothing of the kind"), "is damaged"),
        (lambda path: path.write_bytes(gzip.compress(b"<html>")), "is not an IDX file"),
        (lambda path: path.write_bytes(gzip.compress(b"")), "begins with nothing"),
        (lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x03\0\0")), "inside its header"),
        (lambda p: p.write_bytes(gzip.compress(_idx(np.ones((3, 28, 28)))[:-1])), "3×28×28"),
        (lambda path: path.write_bytes(gzip.compress(_idx(np.ones((3, 28, 28))))), "do not belong"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, idx_files, damage, message):
    _write(tmp_path, idx_files)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        fashion_mnist(tmp_path)
    assert str(path) in str(error.value)


def test_a_label_out_of_range_is_refused(tmp_path, idx_files):
    idx_files["train-labels-idx1-ubyte"][4] = 17
    _write(tmp_path, idx_files)
    with pytest.raises(DataError, match="label 4 is 17"):
        fashion_mnist(tmp_path)


# ------------------------------------------------------------------------- CIFAR-10


@pytest.fixture
def records(monkeypatch):
    monkeypatch.setattr(datafiles, "RECORDS", 20)
    rng = np.random.default_rng(1)
    return {
        name: (rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, 20))
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    }


def _write_binary(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in records.items():
        rows = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(20, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def _write_strips(folder, records):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, _) in records.items():
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(20, 1024, 3)
        Image.fromarray(rows).save(folder / f"{name}.png")
    train = np.concatenate([labels for name, (_, labels) in records.items() if "data" in name])
    (folder / "train_lables.json").write_text(json.dumps(train.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(records["test_batch"][1].tolist()))


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
@pytest.mark.parametrize("write", [_write_binary, _write_strips])
def test_cifar10_reads_both_versions(tmp_path, records, write, inside):
    if write is _write_strips and inside:
        inside = "package"
    write(tmp_path / inside, records)
    data = cifar10(tmp_path)
    assert (data.input, data.classes, len(data.train), len(data.test)) == ((3, 32, 32), 10, 100, 20)
    images, labels = records["data_batch_3"]
    assert np.array_equal(data.train.pixels[40:60].numpy(), images)
    assert data.train.labels[40:60].tolist() == labels.tolist()
    assert np.array_equal(data.test.pixels.numpy(), records["test_batch"][0])
    fetched = torch.stack([image for image, _ in data.train])
    assert fetched.mean(dim=(0, 2, 3)).abs().max() < 1e-4


def test_truncated_cifar10_is_refused(tmp_path, records):
    _write_binary(tmp_path, records)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-3073])  # at the end of a record
    with pytest.raises(DataError, match=r"data_batch_2.bin is damaged: 58387 bytes, expected 20"):
        cifar10(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_2.bin cannot be read"):
        cifar10(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_4.png", b"GIF?", "is not a picture"),
        ("data_batch_4.png", None, "missing or damaged"),
        ("train_lables.json", b"[1, 2", "is not JSON"),
        ("train_lables.json", b"[1, 2]", "2 labels for 100 images"),
        ("train_lables.json", b'["cat"]', "whole numbers"),
        ("test_lables.json", json.dumps([10] * 20).encode(), "label 0 is 10"),
        ("test_lables.json", None, "there is neither test_lables.json nor test_labels.json"),
    ],
)
def test_damaged_strips_are_refused(tmp_path, records, name, content, message):
    _write_strips(tmp_path, records)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        cifar10(tmp_path)


def test_cut_strip_is_refused(tmp_path, records):
    _write_strips(tmp_path, records)
    path = tmp_path / "test_batch.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"test_batch.png is missing or damaged"):
        cifar10(tmp_path)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_pickles_are_never_loaded(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / "data_batch_1").write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(DataError, match=r"pickles.*cifar-10-binary\.tar\.gz"):
        cifar10(tmp_path)


def test_no_cifar10_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"no CIFAR-10.*data_batch_1\.bin.*cifar\.html"):
        cifar10(tmp_path)


# ------------------------------------------------------------------ one's own data sets


class Listed(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


IMAGE = torch.zeros(2, 4, 4)


def test_from_datasets_infers_shape_and_classes():
    train = Listed([(IMAGE, 0), (np.zeros((2, 4, 4)), np.int64(3)), (IMAGE, torch.tensor(1))])
    test = Listed([(IMAGE, 5)])
    data = from_datasets(train, test, name="mine", crop_padding=1, flip=True)
    assert (data.input, data.classes, data.name) == ((2, 4, 4), 6, "mine")
    assert data.train is train
    assert data.test is test
    assert from_datasets(train, classes=7).classes == 7


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (KeyError("gone"), r"train\[2\] cannot be loaded: KeyError: 'gone'"),
        (IMAGE, r"train\[2\] is a Tensor, expected a pair"),
        ((IMAGE, 0, 1), r"train\[2\] is a tuple, expected a pair"),
        (("picture", 0), r"train\[2\]: the image is a str"),
        ((np.array(["a"]), 0), r"train\[2\] must be numbers"),
        ((IMAGE, 1.0), r"train\[2\] must be numbers and an integer label, got .* float"),
        ((IMAGE, torch.zeros(3)), r"train\[2\] must be numbers and an integer label"),
        ((IMAGE[:1], 0), r"train\[2\] has the shape \(1, 4, 4\), others have \(2, 4, 4\)"),
        ((IMAGE / 0, 0), r"train\[2\] holds values that are not finite"),
        ((IMAGE, -1), r"train\[2\] has the label -1, expected 0 to 3"),
        ((IMAGE, 4), r"train\[2\] has the label 4, expected 0 to 3"),
    ],
)
def test_a_bad_item_is_named(item, message):
    items = [(IMAGE, 0), (IMAGE, 1), item, (IMAGE, 2)]
    with pytest.raises(DataError, match=message):
        from_datasets(Listed(items), classes=4)


def test_the_test_set_is_checked_as_well():
    with pytest.raises(DataError, match=r"test\[0\] has the shape"):
        from_datasets(Listed([(IMAGE, 0)]), Listed([(IMAGE[:1], 0)]))


def test_sets_that_are_no_map_style_sets_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(DataError, match="has no length"):
        from_datasets(Stream())
    with pytest.raises(DataError, match="is empty"):
        from_datasets(Listed([]))


def test_large_sets_are_checked_at_both_ends_and_evenly(monkeypatch):
    monkeypatch.setattr("nas.data.CHECKED_ITEMS", 5)
    seen = []

    class Watched(Listed):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    from_datasets(Watched([(IMAGE, 0)] * 101))
    assert seen == [0, 25, 50, 75, 100]


def test_augmentation_is_for_images():
    with pytest.raises(DataError, match="crop_padding and flip are for images"):
        from_datasets(Listed([(torch.zeros(4), 0)]), flip=True)
    with pytest.raises(DataError, match="crop_padding must be zero or more"):
        from_datasets(Listed([(IMAGE, 0)]), crop_padding=-1)


# ------------------------------------------------------------------- descriptions, fit


def test_descriptions_make_the_same_data(tmp_path, idx_files):
    assert describe(digits()) == {"name": "digits"}
    _write(tmp_path, idx_files)
    description = json.loads(json.dumps(describe(fashion_mnist(tmp_path))))
    again = create("datasets", description, "data")
    assert describe(again) == description == {"name": "fashion_mnist", "root": str(tmp_path)}


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType("some_users_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_factory_used_by_name_is_remembered(module):
    module.make = lambda size=3: from_datasets(Listed([(torch.zeros(1, size, size), 0)] * 4))
    description = {"name": "some_users_module:make", "size": 5}
    data = create("datasets", description, "data")
    assert data.input == (1, 5, 5)
    assert describe(data) == description


def test_a_factory_must_return_data(module):
    module.make = lambda: Listed([])
    with pytest.raises(ConfigError, match=r"data: .*returned a Listed, expected a nas.data.Data"):
        create("datasets", "some_users_module:make", "data")


def test_data_from_a_script_cannot_be_made_again():
    description = describe(from_datasets(TensorDataset(torch.zeros(4, 1, 2, 2), torch.arange(4))))
    assert description == {OPAQUE: "nas.data.Data"}
    with pytest.raises(ConfigError, match="lives in a Python script"):
        create("datasets", description, "data")


def test_misfits_say_both_shapes_and_what_to_set():
    data = digits()
    check_fits(data, NasBench201(input=(1, 8, 8)))
    with pytest.raises(
        DataError, match=r"\(1, 8, 8\).*\(3, 32, 32\).*set the space's input to 1x8x8"
    ):
        check_fits(data, NasBench201())
    with pytest.raises(DataError, match=r"10 classes.*100 apart.*set the space's classes to 10"):
        check_fits(data, NasBench201(input=(1, 8, 8), classes=100))


def test_split_is_a_partition_and_depends_on_the_seed_alone():
    data = digits()
    first, second = split(data, 0.25, seed=3)
    assert len(second) == round(0.25 * len(data.train))
    assert sorted([*first.indices.tolist(), *second.indices.tolist()]) == list(range(1438))
    again = split(dataclasses.replace(data), 0.25, seed=3)
    assert torch.equal(again[0].indices, first.indices)
    assert not torch.equal(split(data, 0.25, seed=4)[0].indices, first.indices)
    # In random order, so that a beginning of it is a sample of all classes.
    assert len(set(data.train.labels[first.indices[:60]].tolist())) == 10


@pytest.mark.parametrize(
    ("fraction", "error"), [(0.0, ConfigError), (1.0, ConfigError), (0.01, DataError)]
)
def test_split_refuses_empty_parts(fraction, error):
    data = Data("few", Listed([(IMAGE, 0)] * 10), None, (2, 4, 4), 2)
    with pytest.raises(error):
        split(data, fraction)
