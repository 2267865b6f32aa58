"""The course of training shared weights: sizes, phases, steps, and what is learnt from whom."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch.nn import functional as F
from torch.utils.data import Subset

from nas.components import create
from nas.data import digits, split
from nas.errors import ConfigError, UnsupportedRequest
from nas.plain import nearest_to
from nas.space import sample
from nas.supernet import Supernet
from nas.supernet.path_settings import PUBLISHED
from nas.supernet.plans import PLANS
from nas.supernet.sizes import open_sizes
from nas.supernet.training import PathSettings, PathTraining
from search_spaces.mbconv import MBConv, Stage
from search_spaces.nasbench201 import NasBench201

DIGITS = functools.cache(digits)
IR = {"kernels": (3, 5), "expansions": (2, 3, 4)}
SPACE = MBConv(
    (
        Stage(("ds_k3",), (8,)),
        Stage(("ir",), (8,), (1, 2, 3), **IR),
        Stage(("ir",), (16,), (1, 2), 2, **IR),
    ),
    stem=8, stem_stride=1, head=16, widths=(50, 100), resolutions=(6, 8), dropout=0.0, classes=10,
    input=(1, 8, 8),
)  # fmt: skip
SIZES = functools.cache(lambda: open_sizes(SPACE))


def training(plan, epochs=2, examples=64, seed=0, space=SPACE, **settings):
    data = DIGITS()
    part, _ = split(data, 0.2)
    part = Subset(part.dataset, part.indices[:examples])
    made = PathSettings(**{"batch_size": 16, "learning_rate": 0.05, **settings}, epochs=epochs)
    return PathTraining(space, part, data, made, plan, seed, "cpu")


# ------------------------------------------------------------------------------------ sizes


def test_sizes_are_told_apart_by_what_they_resize():
    sizes = SIZES()
    assert {label.rsplit("/")[-1] for label in sizes.kernels} == {"kernel"}
    assert {label.rsplit("/")[-1] for label in sizes.inner} == {"expansion"}
    assert set(sizes.depths) == {"stage2/depth", "stage3/depth"}
    assert sizes.widths == ("width",)
    assert sizes.images == ("resolution",)
    assert len(sizes.kernels) == len(sizes.inner) == 5


@pytest.mark.parametrize(
    ("name", "inner", "widths"),
    [
        ("autoformer", {"heads", "ratio"}, {"embedding"}),
        ("ofa_mobilenet_v3", {"expansion"}, {"width"}),
        ("slimmable_mobilenet_v2", {"width"}, set()),
    ],
)
def test_sizes_of_published_spaces(name, inner, widths):
    sizes = open_sizes(SMALL[name]())
    assert {label.rsplit("/")[-1] for label in sizes.inner} == inner
    assert {label.rsplit("/")[-1] for label in sizes.widths} == widths


# ------------------------------------------------------------------------------------- steps


def value(arch, label):
    return arch.as_dict()[label]


def test_a_sandwich_is_the_largest_random_ones_and_the_smallest():
    (phase,) = PLANS["sandwich"](SPACE, None).phases
    rng = np.random.default_rng(0)
    between = set()
    for _ in range(20):
        largest, *random, smallest = phase.paths(rng)
        assert len(random) == 2
        for label in (*SIZES().of_weights, "resolution"):
            if label in largest.as_dict():
                assert value(largest, label) == max(SIZES().options[label])
            if label in smallest.as_dict():
                assert value(smallest, label) == min(SIZES().options[label])
        between |= {arch.digest() for arch in random}
    assert len(between) > 30
    assert phase.teaching == "first"
    assert len(PLANS["sandwich"](SPACE, 5).phases[0].paths(rng)) == 7


def test_progressive_shrinking_opens_kernels_then_depths_then_expansions_then_widths():
    plan = PLANS["progressive"](SPACE, None)
    assert [phase.name for phase in plan.phases] == [
        *("largest", "kernel", "depth, two sizes", "depth"),
        *("expansion, two sizes", "expansion", "width"),
    ]
    rng = np.random.default_rng(0)
    seen: dict[str, dict[str, set[int]]] = {}
    for phase in plan.phases:
        kinds = seen.setdefault(phase.name, {})
        for _ in range(60):
            archs = phase.paths(rng)
            assert len({value(arch, "resolution") for arch in archs}) == 1  # one image size a step
            for arch in archs:
                for label, option in arch.picks:
                    kinds.setdefault(label.rsplit("/")[-1], set()).add(int(option))
    start = {"kernel": {5}, "depth": {2, 3}, "expansion": {4}, "width": {100}, "resolution": {6, 8}}
    assert seen["largest"] == start
    assert seen["kernel"] == start | {"kernel": {3, 5}}
    two = {"kernel": {3, 5}, "depth": {1, 2, 3}}  # of stage 3, 1 and 2 are the two largest
    assert seen["depth, two sizes"] == start | two
    assert seen["expansion, two sizes"] == start | two | {"expansion": {3, 4}}
    assert seen["expansion"] == start | two | {"expansion": {2, 3, 4}}
    assert seen["width"] == start | two | {"expansion": {2, 3, 4}, "width": {50, 100}}
    assert [len(phase.paths(rng)) for phase in plan.phases] == [1, 1, 2, 2, 4, 4, 4]
    assert [bool(phase.sort) for phase in plan.phases] == [False] * 4 + [True] * 3
    assert plan.phases[0].teaching == "labels"
    assert {phase.teaching for phase in plan.phases[1:]} == {"teacher"}


def test_phases_take_the_papers_shares_of_the_epochs():
    plan = PLANS["progressive"](SPACE, None)
    starts = plan.starts(710)
    assert starts == pytest.approx([0, 180, 300, 325, 445, 470, 590, 710])


@pytest.mark.parametrize("rule", ["sandwich", "progressive"])
def test_a_space_without_sizes_has_no_largest_network(rule):
    with pytest.raises(UnsupportedRequest, match="no size that is open"):
        PLANS[rule](NasBench201(channels=4, cells=1, input=(1, 8, 8)), None)


def test_fair_steps_have_no_number_of_paths():
    with pytest.raises(UnsupportedRequest, match="paths must be None, got 3"):
        PLANS["fair"](NasBench201(), 3)
    with pytest.raises(ConfigError, match="paths must be at least 1, got 0"):
        PathSettings(paths=0)


def test_settings_of_papers_by_name():
    found = create(
        "evaluators",
        {
            "name": "one_shot",
            "sampling": "progressive",
            "settings": {"name": "once_for_all", "epochs": 3},
        },
        "evaluator",
        {"space": SPACE, "data": DIGITS()},
    )
    assert found.settings == replace(PUBLISHED["once_for_all"], epochs=3)
    with pytest.raises(ConfigError, match=r"'once_for_al'.*once_for_all"):
        PathSettings.named("once_for_al")


def test_residual_branches_begin_at_zero():
    trained = training(PLANS["sandwich"](SPACE, None), zero_residuals=True)
    x = torch.randn(4, 1, 8, 8)
    deep, shallow = (
        trained.supernet.extract(
            nearest_to(SPACE, {"width": 100, "stage2/depth": depth, "stage3/depth": 1})
        ).eval()
        for depth in (3, 1)
    )
    assert torch.equal(deep(x), shallow(x))
    trained.advance()
    norms = [n for n in trained.supernet.state_dict() if n.endswith("project.1.weight")]
    moved = [bool(trained.supernet.state_dict()[name].abs().sum() > 0) for name in norms]
    assert all(moved)


# ---------------------------------------------------------------------------------- learning


def test_a_sandwich_step_is_written_out():
    """Labels for the largest, its soft targets for the others, gradients added, one update."""
    plan = PLANS["sandwich"](SPACE, None)
    trained = training(
        plan, weight_decay=0.0, momentum=0.0, gradient_clip=None, label_smoothing=0.1
    )
    supernet = trained.supernet
    archs = plan.phases[0].paths(np.random.default_rng(0))
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
    supernet.zero_grad()
    target = None
    for arch in archs:
        logits = supernet.network(arch).train()(images)
        if target is None:
            loss, target = F.cross_entropy(logits, labels, label_smoothing=0.1), logits.detach()
        else:
            # Up to the teacher's entropy, which has no gradient.
            loss = F.cross_entropy(logits, target.softmax(dim=1))
        loss.backward()
    expected = {
        name: before[name] - 0.05 * p.grad if p.grad is not None else before[name]
        for name, p in supernet.named_parameters()
    }
    trained.step(images, labels, archs, "first")  # the settings' rate, 0.05, is still the group's
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=1e-6)


def test_the_teacher_is_the_largest_network_as_the_first_phase_left_it():
    plan = PLANS["progressive"](SPACE, None)
    trained = training(plan, epochs=3, examples=128)
    left = {}
    begin = trained._begin

    def noted():
        if trained.phase == 0:
            left.update(trained.supernet.extract(plan.teacher).state_dict())
        begin()

    trained._begin = noted
    while trained.phase < 2:
        trained.advance()
    teacher = trained.state_dict()["teacher"]
    assert teacher.keys() == left.keys()
    assert all(
        torch.equal(teacher[name], left[name])
        for name in left
        if "running" not in name and "tracked" not in name
    )  # it teaches in training mode
    now = trained.supernet.extract(plan.teacher).state_dict()
    weights = [name for name, tensor in teacher.items() if tensor.dim() > 1]
    assert any(not torch.equal(teacher[name], now[name]) for name in weights)
    after = {k: v.clone() for k, v in teacher.items()}
    trained.advance()
    later = trained.state_dict()["teacher"]
    assert all(torch.equal(later[name], after[name]) for name in weights)


def test_a_taught_step_adds_the_labels_and_the_teachers_losses():
    plan = PLANS["progressive"](SPACE, None)
    trained = training(plan, epochs=1, weight_decay=0.0, momentum=0.0, gradient_clip=None)
    trained.advance()
    arch = sample(SPACE, np.random.default_rng(3))
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    with torch.no_grad():
        target = trained._teacher(images).softmax(dim=1)
    logits = trained.supernet.network(arch).train()(images)
    divergence = F.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean")
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1) + divergence
    found = trained.step(images, labels, [arch], "teacher")
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)


def test_sorting_at_a_phase_keeps_what_the_largest_computes(monkeypatch):
    plan = PLANS["progressive"](SPACE, None)
    trained = training(plan, epochs=7, examples=32)
    x = torch.randn(4, 1, 8, 8)
    moved = []
    sort = PathTraining._begin

    def begin(self):
        largest = self.supernet.extract(plan.teacher).eval()
        before = self.supernet.state_dict()["largest." + "layers.head.conv.0.weight"].clone()
        sort(self)
        if plan.phases[self.phase].sort:
            after = self.supernet.extract(plan.teacher).eval()
            torch.testing.assert_close(after(x), largest(x), rtol=1e-4, atol=1e-4)
            now = self.supernet.state_dict()["largest." + "layers.head.conv.0.weight"]
            moved.append(not torch.equal(before, now))

    monkeypatch.setattr(PathTraining, "_begin", begin)
    while not trained.done:
        trained.advance()
    assert moved == [False, False, True]  # the stages' outputs are sorted with the width


@pytest.mark.parametrize("rule", ["sandwich", "progressive"])
def test_training_goes_on_to_the_same_bits(rule):
    plan = PLANS[rule](SPACE, None)
    whole = training(plan, epochs=4)
    while not whole.done:
        whole.advance()
    for stop in (1, 3):
        begun, resumed = training(plan, epochs=4), training(plan, epochs=4)
        for _ in range(stop):
            begun.advance()
        resumed.load_state_dict(begun.state_dict())
        while not resumed.done:
            resumed.advance()
        one, other = whole.state_dict(), resumed.state_dict()
        assert one["curve"] == other["curve"]
        assert one["passes"] == other["passes"]
        for kind in ("supernet", "optimiser", "teacher"):
            assert one[kind].keys() == other[kind].keys()
            assert all(torch.equal(one[kind][key], other[kind][key]) for key in one[kind])


def test_passes_count_every_path():
    trained = training(PLANS["sandwich"](SPACE, 1), epochs=2)
    trained.advance()
    assert trained.passes == pytest.approx(3.0)


@pytest.mark.parametrize(
    "rule",
    ["uniform", *(pytest.param(r, marks=pytest.mark.slow) for r in ("sandwich", "progressive"))],
)
def test_all_sizes_learn(rule):
    """Digits: with few epochs the smallest and the largest are far above chance."""
    plan = PLANS[rule](SPACE, None)
    epochs = {"uniform": 8, "sandwich": 5, "progressive": 8}[rule]
    trained = training(plan, epochs=epochs, examples=480, channels_last=True, learning_rate=0.1)
    while not trained.done:
        trained.advance()
    assert trained.curve[-1] < trained.curve[0]
    data = DIGITS()
    images, labels = data.test.batch(torch.arange(len(data.test)))
    archs = PLANS["sandwich"](SPACE, 1).phases[0].paths(np.random.default_rng(0))
    for arch in archs:
        network = trained.supernet.extract(arch).train()  # the batch's statistics
        with torch.no_grad():
            assert float((network(images).argmax(1) == labels).float().mean()) > 0.4


# -------------------------------------------------------------------------- kernel transforms


def test_kernel_transforms_are_the_centre_at_first_and_are_learnt():
    plain, supernet = Supernet(SPACE), Supernet(SPACE, kernel_transforms=True)
    plain.load_state_dict(
        {k: v for k, v in supernet.state_dict().items() if not k.startswith("transforms")}
    )
    arch = next(
        arch
        for arch in (sample(SPACE, np.random.default_rng(seed)) for seed in range(50))
        if value(arch, "stage2/block1/kernel") == 3
    )
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(supernet.network(arch)(x), plain.network(arch)(x))
    supernet.network(arch)(x).square().sum().backward()
    given = {
        name: p.grad for name, p in supernet.transforms.named_parameters() if p.grad is not None
    }
    assert any("stage2_block1" in name and grad.abs().sum() > 0 for name, grad in given.items())
    with torch.no_grad():
        for parameter in supernet.transforms.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    view, extracted = supernet.network(arch).eval(), supernet.extract(arch).eval()
    supernet.eval()
    assert torch.equal(supernet.network(arch)(x), extracted(x))
    assert view is supernet.network(arch)
    # By hand: the centre of the kernel, as a row, through the matrix.
    name = "layers.stage2_block1.body.depthwise.0.weight"
    largest = supernet.names[name]
    shared = supernet.tensors[largest]
    matrix = supernet.transforms.matrices[f"{largest.replace('.', '/')}:3x3"]
    made = (shared[:, :, 1:4, 1:4].reshape(-1, 9) @ matrix.t()).view(-1, 1, 3, 3)
    own = extracted.state_dict()[name]
    assert torch.equal(own, made[: len(own)])


def test_what_a_transform_reads_is_used():
    supernet = Supernet(SPACE, kernel_transforms=True)
    for seed in range(10):
        arch = sample(SPACE, np.random.default_rng(seed))
        supernet.zero_grad()
        supernet.network(arch)(torch.randn(4, 1, 8, 8)).square().sum().backward()
        for parameter, mask in supernet.used_parts([arch]).items():
            assert parameter.grad[~mask].eq(0).all()
