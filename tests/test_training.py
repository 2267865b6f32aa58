"""The training loop: it learns, repeats itself to the bit, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from nas.data import digits, from_datasets
from nas.errors import ConfigError, DataError, NasError
from nas.space import parse
from nas.training import (
    Recipe,
    augmented,
    choose_device,
    evaluate,
    fetch,
    initialised,
    retrain,
    train,
)
from nas.training.augmentation import resized
from nas.trial import NotFinite
from search_spaces.chain import Chain

SPACE = Chain(input=(1, 8, 8))
ARCH = parse(
    SPACE,
    "depth=2 conv0/kernel=3 conv0/width=32 conv0/stride=1 "
    "conv1/kernel=3 conv1/width=32 conv1/stride=2 pool=none dense=0",
)


@pytest.fixture(scope="module")
def data():
    return digits()


def _few(data, count=128):
    return Subset(data.train, torch.arange(count))


def _same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


# ------------------------------------------------------------------------- learning


def test_it_learns_digits(data):
    trained = retrain(SPACE, ARCH, data, epochs=4)
    assert trained.test_accuracy > 0.85
    assert trained.train_loss == trained.curve[-1] < trained.curve[0]
    assert len(trained.curve) == 4
    net = initialised(SPACE, ARCH, 1)
    net.load_state_dict(trained.weights)
    assert evaluate(net, data.test)[0] == trained.test_accuracy


def test_evaluate_equals_arithmetic(data):
    net = initialised(SPACE, ARCH, 0)
    images, labels = data.test.batch(torch.arange(len(data.test)))
    with torch.no_grad():
        logits = net.eval()(images)
    accuracy, loss = evaluate(net, data.test)
    assert accuracy == float((logits.argmax(1) == labels).double().mean())
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_one_step_equals_torch_by_hand(data):
    part = _few(data, 32)
    recipe = Recipe(learning_rate=0.3, batch_size=32, warmup=0.0, augment=False)
    net, other = (initialised(SPACE, ARCH, 5).train() for _ in range(2))
    curve = train(net, part, recipe, 1, 0)
    optimizer = torch.optim.SGD(
        other.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    images, labels = fetch(part, torch.arange(32))
    loss = nn.functional.cross_entropy(other(images), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(other.parameters(), 5.0)
    optimizer.step()
    assert curve[0] == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor)


def test_rate_warms_up_and_falls_to_zero():
    recipe = Recipe(learning_rate=1.0, warmup=0.2)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert max(rates) == rates[20] == 1.0
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[0] < 0.06
    assert 0 < rates[-1] < 1e-3
    assert Recipe(warmup=0.0).rate(0, 10) == Recipe().learning_rate


# ------------------------------------------------------------------------- repeating


def test_same_seed_same_bits_whatever_the_global_state(data):
    runs = []
    for state in (1, 2):
        torch.manual_seed(state)
        net = initialised(SPACE, ARCH, 7)
        curve = train(net, _few(data), Recipe(), 2, 7, crop_padding=1, flip=True)
        runs.append((curve, net.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert _same(runs[0][1], runs[1][1])
    other = initialised(SPACE, ARCH, 7)
    assert train(other, _few(data), Recipe(), 2, 8, crop_padding=1, flip=True) != runs[0][0]


def test_retrain_repeats_and_its_seed_matters(data):
    small = dataclasses.replace(data, train=_few(data), test=None)
    one, again = (retrain(SPACE, ARCH, small, epochs=1, seed=3) for _ in range(2))
    assert _same(one.weights, again.weights)
    assert one.test_accuracy is None
    assert not _same(one.weights, retrain(SPACE, ARCH, small, epochs=1, seed=4).weights)


def test_torch_is_left_as_it_was(data):
    threads, broken = torch.get_num_threads(), Broken()
    state = torch.get_rng_state()
    net = initialised(SPACE, ARCH, 0)
    train(net, _few(data), Recipe(), 1, 0, threads=threads + 1)
    evaluate(net.train(), data.test, threads=threads + 1)
    assert net.training
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(NotFinite):
        train(broken, _few(data), Recipe(batch_size=32), 1, 0, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


# ----------------------------------------------------------- every kind of data set


class Transformed(Dataset):
    """A user's own: a random transform on torch's generator, arrays, numpy labels."""

    def __init__(self, images, labels):
        self.images = images
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        noise = 0.1 * torch.randn(())
        return (self.images[index] + noise).numpy(), np.int64(self.labels[index])


def test_data_in_memory_and_one_by_one_train_alike(data):
    images, labels = fetch(_few(data), torch.arange(128))
    curves = []
    for dataset in (
        _few(data),
        TensorDataset(images, labels),
        list(zip(images, labels, strict=True)),
    ):
        net = initialised(SPACE, ARCH, 0)
        curves.append(train(net, dataset, Recipe(), 1, 0, crop_padding=1))
    assert curves[0] == curves[1] == curves[2]


def test_subsets_of_subsets_are_fetched_in_order(data):
    nested = Subset(Subset(data.train, [5, 6, 7, 8]), torch.tensor([3, 1]))
    images, labels = fetch(nested, torch.tensor([1, 0]))
    expected = data.train.batch(torch.tensor([6, 8]))
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


def test_random_transforms_stay_random_and_repeat(data):
    images, labels = fetch(_few(data, 64), torch.arange(64))
    own = from_datasets(Transformed(images, labels), classes=10)
    one, again = (retrain(SPACE, ARCH, own, epochs=2, seed=1) for _ in range(2))
    assert one.curve == again.curve
    plain = from_datasets(TensorDataset(images, labels), classes=10)
    assert retrain(SPACE, ARCH, plain, epochs=2, seed=1).curve != one.curve


def test_an_item_that_raises_later_is_named(data):
    class Fails(Transformed):
        def __getitem__(self, index):
            if index == 37:
                raise OSError("disk gone")
            return super().__getitem__(index)

    images, labels = fetch(_few(data, 64), torch.arange(64))
    with pytest.raises(DataError, match=r"\[37\] cannot be loaded: OSError: disk gone"):
        train(initialised(SPACE, ARCH, 0), Fails(images, labels), Recipe(), 1, 0)


def test_batches_are_equal_so_that_none_holds_a_single_example(data):
    sizes = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = initialised(SPACE, ARCH, 0)

        def forward(self, x):
            sizes.append(len(x))
            return self.net(x)

    train(Watch(), _few(data, 65), Recipe(batch_size=32), 1, 0)
    assert sizes == [22, 22, 21]


def test_an_epoch_sees_every_example_once(data):
    seen = []

    images, labels = fetch(_few(data, 50), torch.arange(50))

    class Listed(Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, index):
            seen.append(index)
            return images[index], labels[index]

    train(initialised(SPACE, ARCH, 0), Listed(), Recipe(batch_size=16), 2, 0)
    assert sorted(seen[:50]) == sorted(seen[50:]) == list(range(50))
    assert seen[:50] != seen[50:] != list(range(50))


# --------------------------------------------------------------------- augmentation


def test_crops_shift_each_image_by_whole_pixels():
    torch.manual_seed(0)
    images = torch.arange(64.0).reshape(1, 1, 8, 8).expand(200, 2, 8, 8)
    shifts = set()
    for image in augmented(images, 2, flip=False):
        assert torch.equal(image[0], image[1])  # channels move together
        centre = int(image[0, 4, 4])
        rows, columns = centre // 8 - 4, centre % 8 - 4
        at = torch.arange(8)
        expected = images[0, 0][(at + rows).clamp(0, 7)][:, (at + columns).clamp(0, 7)]
        assert torch.equal(image[0], expected)
        shifts.add((rows, columns))
    assert shifts == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}


def test_flips_mirror_about_half_the_images():
    torch.manual_seed(0)
    images = torch.arange(400 * 6.0).reshape(400, 1, 2, 3)
    flipped = augmented(images, 0, flip=True)
    mirrored = 0
    for image, original in zip(flipped, images, strict=True):
        assert torch.equal(image, original) or torch.equal(image, original.flip(-1))
        mirrored += torch.equal(image, original.flip(-1))
    assert 150 < mirrored < 250


def test_no_augmentation_without_the_recipe_or_the_data_asking(data):
    def curve(augment, **asked):
        net = initialised(SPACE, ARCH, 0)
        return train(net, _few(data), Recipe(augment=augment), 1, 0, **asked)

    plain = curve(True)
    assert curve(False, crop_padding=1, flip=True) == plain
    assert curve(True, crop_padding=1) != plain
    assert curve(True, flip=True) != plain


def test_resolution_resizes_by_area(data):
    images = torch.rand(2, 1, 8, 8)
    assert resized(images, 8) is images
    assert resized(images, None) is images
    assert resized(images, 4).shape == (2, 1, 4, 4)
    constant = resized(torch.full((1, 1, 8, 8), 0.5), 5)
    torch.testing.assert_close(constant, torch.full((1, 1, 5, 5), 0.5))


# ------------------------------------------------------------------------ bad input


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.layer(x.flatten(1)) / (0.0 if self.steps > 2 else 1.0)


def test_a_loss_that_is_not_finite_names_its_epoch(data):
    with pytest.raises(NotFinite, match=r"training loss is (nan|inf) in epoch 2"):
        train(Broken(), _few(data), Recipe(batch_size=64), 3, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("batch_size", 1),
        ("warmup", 1.0),
        ("label_smoothing", -0.1),
        ("gradient_clip", 0.0),
    ],
)
def test_recipe_checks_its_ranges(field, value):
    with pytest.raises(ConfigError, match=rf"recipe: {field} must be .*, got {value}"):
        Recipe(**{field: value})


def test_recipes_that_are_fine():
    Recipe(momentum=0.0, weight_decay=0.0, gradient_clip=None, warmup=0.0)


def test_bad_arguments_are_refused_before_work(data):
    net = initialised(SPACE, ARCH, 0)
    with pytest.raises(ConfigError, match="epochs must be at least 1, got 0"):
        train(net, data.train, Recipe(), 0, 0)
    with pytest.raises(DataError, match="two examples at least"):
        train(net, _few(data, 1), Recipe(), 1, 0)
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        train(net, data.train, Recipe(), 1, 0, device="gpu")
    with pytest.raises(DataError, match="set the space's input to 1x8x8"):
        retrain(Chain(), ARCH, data, epochs=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_without_a_gpu():
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(NasError, match="torch finds no GPU here"):
        choose_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_trains_on_a_gpu(data):
    trained = retrain(SPACE, ARCH, data, epochs=4, device="cuda")
    assert trained.test_accuracy > 0.85
    assert all(tensor.device.type == "cpu" for tensor in trained.weights.values())
