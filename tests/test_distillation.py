"""A teacher: losses equal to arithmetic, folders that are read and not run, errors before work."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from evaluators.training import TrainingEvaluator
from nas.components import create, describe
from nas.data import digits
from nas.delivery import retrain_and_export
from nas.errors import ConfigError, DataError
from nas.export import export
from nas.space import network, parse
from nas.training import (
    Distillation,
    Recipe,
    evaluate,
    initialised,
    load_teacher,
    retrain,
    train,
    weights,
)
from nas.training.distillation import angle_loss, distance_loss, lesson, soft_target_loss
from nas.trial import Proposal
from search_spaces.chain import Chain

SPACE = Chain(input=(1, 8, 8))
ARCH = parse(
    SPACE,
    "depth=2 conv0/kernel=3 conv0/width=16 conv0/stride=1 "
    "conv1/kernel=3 conv1/width=16 conv1/stride=2 pool=none dense=0",
)


RECIPE = Recipe(batch_size=64)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def part(data):
    return Subset(data.train, torch.arange(96))


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "net"
    trained = retrain(SPACE, ARCH, data, epochs=5)
    export(SPACE, ARCH, folder, trained.weights)
    return folder, trained


def classifier(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, classes))


# -------------------------------------------------------------------------------------- losses


def test_soft_targets_have_the_gradient_of_their_cross_entropy():
    torch.manual_seed(0)
    logits, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    soft_target_loss(logits, teacher, 3.0).backward()
    found, logits.grad = logits.grad, None
    (F.cross_entropy(logits / 3, (teacher / 3).softmax(1)) * 9).backward()
    torch.testing.assert_close(found, logits.grad)
    assert float(soft_target_loss(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-6)


def test_relations_equal_loops():
    torch.manual_seed(1)
    mine, its = torch.randn(6, 3), torch.randn(6, 5)

    def distances(points):
        unit = [p / p.norm() for p in points]
        far = torch.stack([(a - b).norm() for a in unit for b in unit])
        return far / far[far > 0].mean()

    def cosines(points):
        unit = [p / p.norm() for p in points]
        found = []
        for i, j, k in itertools.product(range(6), repeat=3):
            one, other = unit[j] - unit[i], unit[k] - unit[i]
            either = one.norm() * other.norm()
            found.append(one @ other / either if either > 0 else torch.tensor(0.0))
        return torch.stack(found)

    torch.testing.assert_close(
        distance_loss(mine, its), F.smooth_l1_loss(distances(mine), distances(its))
    )
    torch.testing.assert_close(
        angle_loss(mine, its), F.smooth_l1_loss(cosines(mine), cosines(its)), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_relations_do_not_change_under_rotation_scale_and_more_dimensions(loss):
    torch.manual_seed(2)
    points = torch.randn(7, 4)
    turned = 3.0 * points @ torch.linalg.qr(torch.randn(6, 6)).Q[:4]
    assert float(loss(points, turned)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(points, torch.randn(7, 4))) > 1e-3
    equal = torch.ones(4, 3, requires_grad=True)
    loss(equal, torch.randn(4, 3)).backward()
    assert equal.grad.isfinite().all()  # where all distances are zero


def test_a_batch_is_taught_by_the_sum_of_what_is_asked_for():
    torch.manual_seed(3)
    student, teacher, images = classifier(), classifier().train(), torch.randn(4, 1, 8, 8)
    settings = Distillation(temperature=2.0, soft=0.3, distance=25.0, angle=50.0)
    with lesson(teacher, settings, student, images) as taught:
        assert student.training
        assert not teacher.training
        output = student(images)
        loss = taught.loss(torch.tensor(1.5), output, images)
    assert teacher.training
    assert not any(module._forward_hooks for module in student.modules())
    logits = teacher(images)
    mine, its = student[:3](images), teacher[:3](images)
    expected = 0.7 * 1.5 + 0.3 * soft_target_loss(output, logits, 2.0)
    expected += 25 * distance_loss(mine, its) + 50 * angle_loss(mine, its)
    torch.testing.assert_close(loss, expected)
    assert all(parameter.grad is None for parameter in teacher.parameters())


# ------------------------------------------------------------------------------------ training


def test_a_student_without_labels_learns_from_its_teacher(data, exported):
    folder, trained = exported
    teacher = load_teacher(folder, data.input, data.classes)
    assert evaluate(teacher, data.test)[0] == trained.test_accuracy
    images, labels = data.train.batch(torch.arange(len(data.train)))
    untold = TensorDataset(images, torch.zeros_like(labels))
    students = []
    for _ in range(2):
        student = initialised(SPACE, ARCH, 5)
        only = Distillation(soft=1.0)
        train(student, untold, RECIPE, 5, 5, teacher=teacher, distillation=only)
        students.append(weights(student))
    assert evaluate(student, data.test)[0] > 0.4
    assert all(torch.equal(tensor, students[1][n]) for n, tensor in students[0].items())


def test_a_teacher_sees_images_of_its_own_size(data, exported):
    teacher = load_teacher(exported[0], (1, 12, 12), 10)
    assert teacher(torch.randn(2, 1, 5, 5)).shape == (2, 10)


def test_the_evaluator_is_taught_and_written_down(data, exported):
    folder = str(exported[0])
    given = {"space": SPACE, "data": data}
    written = {"name": "training", "teacher": folder, "distillation": {"temperature": 2.0}}
    common = {"epochs": 1, "data_fraction": 0.1, "keep_weights": False}
    evaluator = create("evaluators", {**written, **common}, "evaluator", given)
    assert evaluator.distillation == Distillation(temperature=2.0)
    again = create("evaluators", json.loads(json.dumps(describe(evaluator))), "evaluator")
    proposal = Proposal(0, ARCH, 3)
    taught = evaluator.evaluate(proposal)
    assert again.evaluate(proposal).values == taught.values
    plain = TrainingEvaluator(SPACE, data, **common).evaluate(proposal)
    assert plain.notes["curve"] != taught.notes["curve"]


# ----------------------------------------------------------------------------------- bad input


def test_a_teacher_of_other_classes_is_refused_before_work(part, data, exported):
    student = classifier()
    before = weights(student)
    message = "teacher Sequential tells 7 classes apart, but the data have 10"
    with pytest.raises(ConfigError, match=message):
        train(student, part, RECIPE, 1, 0, teacher=classifier(7))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(student).items())
    with pytest.raises(ConfigError, match=r"net: the teacher Teacher tells 10 classes apart, .* 7"):
        load_teacher(exported[0], data.input, 7)
    with pytest.raises(ConfigError, match=r"takes examples of shape \(1, 8, 8\), the data's are"):
        load_teacher(exported[0], (3, 8, 8), 10)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), "takes no examples of shape 1x8x8"),
        (nn.Conv2d(1, 10, 8), r"gave \(2, 10, 1, 1\), expected logits of shape \(N, 10\)"),
    ],
)
def test_teachers_that_do_not_fit(part, teacher, message):
    with pytest.raises(ConfigError, match=message):
        train(classifier(), part, RECIPE, 1, 0, teacher=teacher)


def test_features_need_a_linear_layer_at_the_end(part):
    teacher = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    train(classifier(), part, RECIPE, 1, 0, teacher=teacher)
    with pytest.raises(ConfigError, match="Sequential does not end in a linear layer"):
        train(
            classifier(), part, RECIPE, 1, 0, teacher=teacher,
            distillation=Distillation(angle=1.0),
        )  # fmt: skip


def test_folders_that_are_no_teachers(tmp_path, exported):
    folder, _ = exported
    with pytest.raises(DataError, match=r"is no exported network: it has no architecture.json"):
        load_teacher(tmp_path, (1, 8, 8), 10)

    def changed(name, content):
        copy = tmp_path / "copy"
        copy.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.is_file():
                (copy / file.name).write_bytes(file.read_bytes())
        (copy / name).write_bytes(content)
        return copy

    with pytest.raises(DataError, match="describes no network"):
        load_teacher(changed("architecture.json", b"{"), (1, 8, 8), 10)
    with pytest.raises(DataError, match="does not hold the weights of"):
        load_teacher(changed("model.safetensors", b"nothing"), (1, 8, 8), 10)
    from safetensors.torch import load, save

    other = load((folder / "model.safetensors").read_bytes())
    other = save({name: tensor + 1 for name, tensor in other.items()})
    with pytest.raises(DataError, match="weights do not give the output of check"):
        load_teacher(changed("model.safetensors", other), (1, 8, 8), 10)


def test_a_folder_names_no_code_to_run(tmp_path, exported):
    folder, _ = exported
    marker = tmp_path / "ran"
    document = json.loads((folder / "architecture.json").read_text())
    document["search_space"] = {"name": "os:mkdir", "path": str(marker)}
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    (tmp_path / "model.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(ConfigError, match="'os:mkdir' is not a registered one"):
        load_teacher(tmp_path, (1, 8, 8), 10)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("soft", 1.5), ("distance", -1.0), ("angle", -1.0)]
)
def test_settings_check_their_ranges(field, value):
    with pytest.raises(ConfigError, match=rf"distillation: {field} must be .*, got {value}"):
        replace(Distillation(), **{field: value})


def test_a_merged_teacher_computes_what_was_exported(exported):
    folder, trained = exported
    net = network(SPACE, ARCH).eval()
    net.load_state_dict(trained.weights)
    x = torch.randn(3, 1, 8, 8)
    teacher = load_teacher(folder, (1, 8, 8), 10)
    torch.testing.assert_close(teacher(x), net(x))


def test_a_network_is_retrained_under_a_teacher(data, exported, tmp_path):
    small = replace(data, train=Subset(data.train, torch.arange(96)), test=None)
    common = {"epochs": 1, "recipe": RECIPE}
    retrain_and_export(SPACE, ARCH, small, tmp_path / "alone", **common)
    retrain_and_export(SPACE, ARCH, small, tmp_path / "taught", teacher=exported[0], **common)
    alone, taught = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "taught")
    )
    assert alone != taught
    with pytest.raises(DataError, match="is no exported network"):
        retrain_and_export(SPACE, ARCH, small, tmp_path / "no", teacher=tmp_path, **common)
    assert not (tmp_path / "no").exists()
