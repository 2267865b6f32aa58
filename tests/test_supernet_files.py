"""A supernet as a file: the same to the bit elsewhere, and every damage or mismatch named."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from elastic import DIGITS, QUICK, elastic, one_shot
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from nas.components import describe
from nas.data import from_datasets
from nas.described import described
from nas.errors import ConfigError, DataError, ResumeError
from nas.space import sample
from nas.supernet import Supernet
from nas.supernet.files import WEIGHTS, load_supernet, read, save_supernet, share, write
from nas.supernet.training import PathSettings
from nas.testing.toys import FlatSpace
from nas.trial import Proposal

SPACE = elastic()
ARCH = sample(SPACE, np.random.default_rng(3))
FACTS = {"data": DIGITS(), "sampling": "uniform", "settings": QUICK, "seconds": 1.5}


def fresh(seed=0, space=SPACE, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Supernet(space, **arguments)


def image():
    return torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)


def fingerprint(supernet):
    """Of all tensors, and of what a sub-network says."""
    digest = hashlib.sha256()
    for name, tensor in sorted(supernet.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    with torch.no_grad():
        digest.update(supernet.extract(ARCH).eval()(image()).numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "supernet.safetensors"
    save_supernet(path, fresh(), FACTS)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a training that is done, and the evaluator."""
    path = tmp_path_factory.mktemp("trained") / "supernet.safetensors"
    evaluator = one_shot(path)
    evaluator.fit()
    return path, evaluator


# ---------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("transforms", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path, transforms):
    path = tmp_path / "file"
    supernet = fresh(1, kernel_transforms=transforms)
    with torch.no_grad():
        for parameter in supernet.parameters():  # the transforms are identities at first
            parameter.add_(0.01 * torch.randn_like(parameter))
    before = torch.get_rng_state()
    size = save_supernet(path, supernet, FACTS)
    assert size == path.stat().st_size
    shared = load_supernet(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(shared.supernet) == fingerprint(supernet)
    assert shared.supernet.kernel_transforms == transforms
    assert not shared.supernet.training
    assert describe(shared.space) == describe(SPACE)
    assert shared.facts == json.loads(json.dumps(describe(FACTS)))
    assert shared.facts["data"] == {"name": "digits"}
    assert load_supernet(path, SPACE).space is SPACE


def test_another_process_has_the_same_bits(saved):
    code = (
        "import sys\nfrom test_supernet_files import fingerprint\n"
        "from nas.supernet import files\n"
        "print(fingerprint(files.load_supernet(sys.argv[1]).supernet))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == fingerprint(fresh())


def test_the_digest_is_that_of_the_weights_alone(saved, tmp_path):
    other = tmp_path / "other"
    save_supernet(other, fresh(), {"seconds": 9})
    assert read(other).digest == read(saved).digest
    save_supernet(other, fresh(1), FACTS)
    assert read(other).digest != read(saved).digest


# --------------------------------------------------------------------------- checkpoints of runs


def test_the_checkpoint_of_a_run_is_a_supernet(trained, tmp_path):
    path, evaluator = trained
    shared = load_supernet(path)
    assert shared.supernet.state_dict().keys() == evaluator._weights.keys()
    for name, tensor in shared.supernet.state_dict().items():
        assert torch.equal(tensor, evaluator._weights[name]), name
    assert shared.facts["data"] == {"name": "digits"}
    assert shared.facts["preprocessing"] == dict(DIGITS().preprocessing)
    assert shared.facts["settings"]["epochs"] == QUICK.epochs
    assert shared.facts["seconds"] > 0
    smaller = tmp_path / "shared"
    assert share(path, smaller) < 0.7 * path.stat().st_size
    assert set(read(smaller).tensors) == {WEIGHTS}
    assert fingerprint(load_supernet(smaller).supernet) == fingerprint(shared.supernet)
    assert load_supernet(smaller).digest == shared.digest


def test_what_was_shared_is_a_checkpoint_of_the_same_training(trained, tmp_path):
    path, evaluator = trained
    target = tmp_path / "shared"
    share(path, target)
    again = one_shot(target)
    epochs = []
    assert again.fit(on_epoch=lambda epoch, loss: epochs.append(epoch)) == evaluator.fit()
    assert not epochs
    proposal = Proposal(0, ARCH)
    assert again.evaluate(proposal) == evaluator.evaluate(proposal)
    with pytest.raises(ResumeError, match="seed is 0 there and 4 here"):
        one_shot(target, seed=4).fit()


def test_a_training_that_is_not_done_is_refused_with_its_epochs(tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch, loss):
        raise Killed

    path = tmp_path / "supernet.safetensors"
    settings = PathSettings(epochs=3, batch_size=256)
    with pytest.raises(Killed):
        one_shot(path, settings=settings).fit(on_epoch=kill)
    for refused in (load_supernet, share):
        with pytest.raises(DataError, match="not done: epoch 1 of 3"):
            refused(path)


def test_a_supernet_without_its_training_is_no_checkpoint(saved):
    with pytest.raises(DataError, match="not where its training was left"):
        one_shot(saved).fit()


# ------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "file"
    save_supernet(path, fresh(), FACTS)
    return path.read_bytes()


@settings(max_examples=60)
@given(data=st.data())
def test_any_byte_that_changes_is_found(content, tmp_path_factory, data):
    header = 8 + int.from_bytes(content[:8], "little")
    part = st.one_of(st.integers(0, header - 1), st.integers(header, len(content) - 1))
    place, flip = data.draw(part), data.draw(st.integers(1, 255))
    changed = bytearray(content)
    changed[place] ^= flip
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(bytes(changed))
    with pytest.raises(DataError):
        load_supernet(path)


@settings(max_examples=20)
@given(data=st.data())
def test_any_end_that_is_missing_is_found(content, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError, match="damaged"):
        load_supernet(path)


def test_foreign_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ConfigError, match=r"there is no supernet .*nas supernet train"):
        load_supernet(path)
    save_file({"a": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(DataError, match=r"in the format 'nasforge-supernet/1'.*format"):
        load_supernet(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="no file of a supernet"):
        load_supernet(path)


def changed(path, tensors=lambda tensors: tensors, **document):
    """The same file with something changed and all its digests right."""
    stored = read(path)
    weights = tensors(dict(stored.tensors[WEIGHTS]))
    write(path, {**stored.document, **document}, {WEIGHTS: weights})
    return path


def test_another_version_of_the_format_is_refused(saved):
    with pytest.raises(DataError, match="another version: its format is 'nasforge-supernet/2'"):
        load_supernet(changed(saved, format="nasforge-supernet/2"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {n: v for n, v in t.items() if n != min(t)}, "lacks the tensor '{}'"),
        (lambda t: {**t, min(t): torch.zeros(3, 1)}, r"'{}' has the shape \(3, 1\)"),
        (lambda t: {**t, "largest.extra": torch.zeros(1)}, "a tensor 'largest.extra'"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, says):
    first = min(read(saved).tensors[WEIGHTS])
    with pytest.raises(DataError, match=says.format(first.replace(".", r"\."))):
        load_supernet(changed(saved, change))


# ------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (elastic(head=64), "head 32, here it is 64"),
        (elastic(classes=11), "classes 10, here it is 11"),
        (elastic(input=(1, 9, 9)), r"input \[1, 8, 8\], here it is \[1, 9, 9\]"),
        (elastic(widths=(50, 75, 100)), "other choices or options"),
        (FlatSpace(classes=10, input=(1, 8, 8)), "of 'mbconv/v1', not of"),
    ],
)
def test_another_space_than_the_files_is_refused(saved, space, says):
    with pytest.raises(ConfigError, match=says):
        load_supernet(saved, space)


def test_a_space_that_has_become_another_is_refused(saved):
    told = read(saved).document["space"]
    copy = saved.with_name("copy")
    shutil.copy(saved, copy)
    with pytest.raises(ConfigError, match="supernet of 'mbconv/v0', not of 'mbconv/v1'"):
        load_supernet(changed(saved, space={**told, "name": "mbconv/v0"}))
    gone = {**told, "description": {"name": "no_such_space"}}
    with pytest.raises(ConfigError, match=r"cannot be made again: .*no_such_space"):
        load_supernet(changed(copy, space=gone))


def test_a_space_of_a_script_has_to_be_given(tmp_path):
    def build(builder):
        width = builder.number("width", (2, 4))
        layers = torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10)
        return torch.nn.Sequential(*layers)

    space = described(build, input=(1, 8, 8), classes=10)
    path = tmp_path / "file"
    train = torch.utils.data.TensorDataset(torch.zeros(4, 1, 8, 8), torch.arange(4))
    save_supernet(path, fresh(space=space), {"data": from_datasets(train, classes=10)})
    with pytest.raises(ConfigError, match="script"):
        load_supernet(path)
    shared = load_supernet(path, space)
    assert shared.space is space
    assert "object" in shared.facts["data"]
