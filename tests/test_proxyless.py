"""ProxylessNAS: binary gates of two paths, their gradients, and that the target counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges, GradientContract, described, quick
from mobile_workloads import mobile, small_digits
from small_spaces import SMALL
from test_resource import milliseconds

from nas.cost import architecture_cost, slot_table
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.supernet import Sparse
from nas.supernet.mixture import Mixed
from strategies.proxyless import SETTINGS, SHARE, LatencyLoss, Proxyless, rescale, two_paths
from strategies.resource import ExpectedResource, resource_table

SCORE = (maximize("score"),)
SLOTS = dict.fromkeys(EDGES, OPTIONS)


class TestProxyless(GradientContract):
    kind = Proxyless

    def arguments(self):
        return {"every": 1, "share": 0.5}


@pytest.mark.slow
class TestProxylessAdding(GradientContract):
    """The other form of the loss, on measured latencies."""

    kind = Proxyless

    def arguments(self):
        table = milliseconds(SLOTS)
        return {"every": 1, "share": 0.5, "form": "add", "resource": table, "target": 2.0}


def made(**kwargs):
    settings = quick(SETTINGS, **kwargs.pop("settings", {}))
    return Proxyless(
        Edges(), SCORE, described(), settings=settings, **{"every": 1, "share": 0.5, **kwargs}
    )


def test_the_official_settings():
    assert (SETTINGS.arch_lr, SETTINGS.arch_beta1, SETTINGS.arch_beta2) == (1e-3, 0.0, 0.999)
    assert (SETTINGS.arch_weight_decay, SETTINGS.weight_decay) == (0.0, 4e-5)
    assert (SETTINGS.weight_lr, SETTINGS.nesterov, SETTINGS.batch_size) == (0.025, True, 256)
    assert (SETTINGS.epochs - SETTINGS.warmup_epochs, SETTINGS.warmup_epochs) == (120, 40)
    assert (Proxyless.alpha, Proxyless.beta, Proxyless.every, Proxyless.form) == (
        0.2,
        0.3,
        5,
        "mul",
    )
    assert round(1_281_167 * (1 - SHARE)) == 50_000


# ------------------------------------------------------------------------------ the paths


def test_two_paths_are_sampled_without_replacement_and_one_of_them_is_open():
    torch.manual_seed(0)
    alpha = torch.tensor([0.5, -1.0, 0.2, 1.0])
    for _ in range(200):
        paths = two_paths(alpha)
        one, other = paths.sampled
        assert one != other
        assert paths.gate.computed == paths.sampled
        assert paths.gate.weights.sum() == 1
        assert set(paths.gate.weights.tolist()) == {0.0, 1.0}
        assert int(paths.gate.weights.argmax()) in paths.sampled
        among = alpha[list(paths.sampled)].softmax(0)
        torch.testing.assert_close(paths.probabilities[list(paths.sampled)], among)
        assert float(paths.probabilities.sum()) == pytest.approx(1.0)


def test_paths_come_as_often_as_they_are_probable():
    torch.manual_seed(1)
    alpha = torch.tensor([0.0, 1.0, -1.0])
    p = alpha.softmax(0)
    draws = [two_paths(alpha) for _ in range(3000)]
    for pair in ((0, 1), (0, 2), (1, 2)):
        i, j = pair
        among = [draw for draw in draws if set(draw.sampled) == {i, j}]
        share = float(p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]))
        error = math.sqrt(share * (1 - share) / len(draws))
        assert abs(len(among) / len(draws) - share) < 4 * error
        opened = sum(int(draw.gate.weights[i]) for draw in among) / len(among)
        chance = float(p[i] / (p[i] + p[j]))
        assert abs(opened - chance) < 4 * math.sqrt(chance * (1 - chance) / len(among))


def test_a_slot_with_one_option_has_one_path_and_far_alphas_still_have_two():
    alone = two_paths(torch.tensor([3.0]))
    assert alone.sampled == (0,)
    assert alone.gate.weights.tolist() == [1.0]
    assert len(set(two_paths(torch.tensor([500.0, -500.0, -600.0])).sampled)) == 2


# ------------------------------------------------------------------------------ gradients


def test_alpha_gradients_are_the_published_formula_of_the_gates_gradients():
    """∂L/∂αᵢ = Σⱼ ∂L/∂gⱼ pⱼ (δᵢⱼ − pᵢ) over the two, on a network, slot by slot."""
    search = made().search()
    search.supernet.double().eval()
    batch = search.validation_batch()
    batch.images = batch.images.double()
    torch.manual_seed(2)
    seen = 0
    for _ in range(5):
        alphas = {label: torch.randn(len(OPTIONS)).double().requires_grad_() for label in EDGES}
        paths = {label: two_paths(alpha) for label, alpha in alphas.items()}
        gates = {label: one.gate for label, one in paths.items()}
        search.cross_entropy(batch, gates).backward()
        raw = {
            label: gate.weights.detach().clone().requires_grad_() for label, gate in gates.items()
        }
        loose = {label: Sparse(raw[label], paths[label].sampled) for label in EDGES}
        search.cross_entropy(batch, loose).backward()
        for label, alpha in alphas.items():
            i, j = paths[label].sampled
            by_gate = raw[label].grad
            p = alpha.detach()[[i, j]].softmax(0)
            expected = torch.zeros(len(OPTIONS)).double()
            for a, here in enumerate((i, j)):
                for b, there in enumerate((i, j)):
                    expected[here] += by_gate[there] * p[b] * (float(a == b) - p[a])
            torch.testing.assert_close(alpha.grad, expected)
            seen += int(expected.abs().sum() > 1e-9)
    assert seen >= 8


def test_the_gradient_is_on_average_that_of_the_two_path_softmax():
    """With a loss that is linear in the gates, enumerated over all pairs against draws."""
    values = torch.tensor([1.0, -2.0, 0.5, 3.0])
    alpha = torch.tensor([0.3, -0.4, 0.9, 0.1], requires_grad=True)
    p = alpha.detach().softmax(0)
    exact = torch.zeros(4)
    for i in range(4):
        for j in range(i):
            share = p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])
            among = alpha[[i, j]].softmax(0)
            (slope,) = torch.autograd.grad((among * values[[i, j]]).sum(), alpha)
            exact += share * slope
    torch.manual_seed(0)
    draws = torch.stack(
        [
            torch.autograd.grad((two_paths(alpha).gate.weights * values).sum(), alpha)[0]
            for _ in range(4000)
        ]
    )
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 5 * error).all()


def test_both_forms_of_the_loss_and_their_gradients():
    table = resource_table(Edges(), milliseconds(SLOTS), SLOTS)
    cost = ExpectedResource(table, SLOTS)
    torch.manual_seed(3)
    alphas = {label: torch.randn(len(OPTIONS)).double().requires_grad_() for label in EDGES}
    paths = {label: two_paths(alpha) for label, alpha in alphas.items()}
    probabilities = {label: one.probabilities for label, one in paths.items()}
    expected = table.base + sum(
        float(one.probabilities[k].detach()) * table.slots[label][OPTIONS[k]]
        for label, one in paths.items()
        for k in one.sampled
    )
    entropy = torch.tensor(1.7).double()
    for form, value, slope in (
        (
            "mul",
            1.7 * 0.2 * (math.log(expected / 0.1) / math.log(20.0)) ** 0.3,
            1.7 * 0.2 * 0.3 * math.log(expected / 0.1) ** -0.7 / math.log(20.0) ** 0.3 / expected,
        ),
        ("add", 1.7 + 0.5 * (expected - 2.0) / 2.0, 0.5 / 2.0),
    ):
        loss = LatencyLoss(cost, form, 2.0, 0.2, 0.3, 0.5, 0.1)(entropy, probabilities)
        assert float(loss.detach()) == pytest.approx(value)
        gradients = torch.autograd.grad(loss, list(alphas.values()), retain_graph=True)
        for (label, one), gradient in zip(paths.items(), gradients, strict=True):
            i, j = one.sampled
            q = one.probabilities.detach()
            difference = table.slots[label][OPTIONS[i]] - table.slots[label][OPTIONS[j]]
            by_hand = torch.zeros(len(OPTIONS)).double()
            by_hand[i] = slope * float(q[i] * q[j]) * difference
            by_hand[j] = -by_hand[i]
            torch.testing.assert_close(gradient, by_hand)


# ---------------------------------------------------------------------------------- steps


def test_paths_that_were_not_sampled_stay_as_probable_as_they_were(monkeypatch):
    search = made().search()
    drawn = {}

    def recorded(alpha):
        paths = two_paths(alpha)
        drawn[id(alpha)] = paths.sampled
        return paths

    monkeypatch.setattr("strategies.proxyless.two_paths", recorded)
    torch.manual_seed(0)
    batch = search.validation_batch()
    moved = 0
    for _ in range(6):
        before = {label: alpha.detach().clone() for label, alpha in search.parameters.items()}
        search.steps.update(search, batch)
        for label, alpha in search.parameters.items():
            i, j = drawn[id(alpha)]
            others = [k for k in range(len(OPTIONS)) if k not in (i, j)]
            was, now = before[label].softmax(0), alpha.detach().softmax(0)
            torch.testing.assert_close(now[others], was[others])
            assert torch.equal(alpha.detach()[others], before[label][others])
            moved += float((now - was).abs().max()) > 1e-4
            assert float(now[i] + now[j]) == pytest.approx(float(was[i] + was[j]), rel=1e-5)
    assert moved > 9  # two paths that do not matter may move nothing


def test_rescaling_is_by_the_published_offset():
    before = torch.tensor([0.2, -0.5, 1.0, 0.7])
    stepped = torch.tensor([0.2, -0.1, 1.0, 0.2])
    offset = math.log((math.exp(-0.1) + math.exp(0.2)) / (math.exp(-0.5) + math.exp(0.7)))
    rescale(stepped, before, (3, 1))
    torch.testing.assert_close(stepped, torch.tensor([0.2, -0.1 - offset, 1.0, 0.2 - offset]))


def counted(search):
    """Which options ran since it was last emptied."""
    ran = []
    for slot in search.supernet.modules():
        if isinstance(slot, Mixed):
            for option in slot.options:
                module = slot.option(option)
                if module is not None:
                    module.register_forward_hook(lambda *_, at=(slot.label, option): ran.append(at))
    return ran


def test_only_sampled_paths_are_computed():
    search = made().search()
    batch = search.validation_batch()
    search.cross_entropy(batch, dict.fromkeys(EDGES, "none"))  # finds the shape of zeros once
    ran = counted(search)
    torch.manual_seed(0)
    for _ in range(10):
        ran.clear()
        search.steps.update(search, batch)
        by_slot = {label: [o for at, o in ran if at == label] for label in EDGES}
        assert all(1 <= len(options) <= 2 for options in by_slot.values())
        assert all(len(set(options)) == len(options) for options in by_slot.values())
        ran.clear()
        search.cross_entropy(batch, search.steps.path(search))
        assert len({label for label, _ in ran}) == len(ran)


def test_weights_that_a_step_does_not_use_stay():
    search = made(settings={"momentum": 0.9, "weight_decay": 0.1}).search()
    batch = search.validation_batch()
    path, used = search.steps.path, []
    search.steps.path = lambda search: used.append(path(search)) or used[-1]
    search.steps.every = 10**9
    torch.manual_seed(0)
    stayed = 0
    for step in range(8):
        before = {name: w.detach().clone() for name, w in search.supernet.named_parameters()}
        search.steps(search, batch, batch)
        for name, weight in search.supernet.named_parameters():
            if "edges" in name:
                edge, option = name.split("edges.")[1].split(".")[:2]
                if used[-1][edge.replace("_", "->")] != option:
                    assert torch.equal(before[name], weight), (step, name)
                    stayed += 1
    assert stayed > 20


def test_alpha_moves_after_every_so_many_steps_and_rests_in_the_warm_up():
    strategy = Proxyless(
        Edges(),
        SCORE,
        described(examples=60),
        settings=quick(SETTINGS, batch_size=4, warmup_epochs=1),
        share=0.8,
    )
    search = strategy.search()
    calls = []
    update = search.steps.update
    search.steps.update = lambda *args: (calls.append(search.epoch), update(*args))
    for _ in range(3):
        search.advance()
    # 48 examples in 12 steps: after the fifth and the tenth, but for the first epoch.
    assert calls == [1, 1, 2, 2]
    assert search.examples == 3 * 48 + 4 * 4


# ------------------------------------------------------------------------------ searches


def run(strategy):
    arch = None
    while proposals := strategy.ask(1):
        arch = proposals[0].arch
    return arch


def greatest(space):
    table = slot_table(space)
    return table.base.macs + sum(
        max(terms.macs for terms in options.values()) for options in table.slots.values()
    )


@pytest.mark.slow
def test_half_the_target_gives_fewer_macs_by_the_loss_alone():
    space, data = mobile(), small_digits()
    settings = replace(
        SETTINGS, epochs=4, warmup_epochs=1, batch_size=32, arch_lr=0.03, augment=False
    )
    found, expected = [], []
    for target in (greatest(space), greatest(space) / 2):
        strategy = Proxyless(
            space,
            (maximize("accuracy"),),
            data,
            settings=settings,
            form="add",
            strength=0.2,
            target=target,
            share=0.8,
            every=1,
        )
        found.append(architecture_cost(space, run(strategy)).macs)
        search = strategy.search()
        search.load_state_dict(strategy.state_dict()["run"]["search"])
        slots = search.supernet.slots
        cost = ExpectedResource(resource_table(space, "macs", slots), slots)
        expected.append(
            float(cost({k: a.detach().softmax(0) for k, a in search.parameters.items()}))
        )
    assert expected[1] < 0.9 * expected[0], expected
    assert found[1] < found[0], found


def test_half_the_limit_is_at_most_half_the_macs():
    space, data = mobile(), small_digits()
    settings = replace(SETTINGS, epochs=2, warmup_epochs=1, batch_size=64, augment=False)
    for limit in (0.9 * greatest(space), 0.45 * greatest(space)):
        strategy = Proxyless(
            space,
            (maximize("accuracy"), minimize("macs", limit=limit)),
            data,
            settings=settings,
            share=0.8,
        )
        while proposals := strategy.ask(1):
            assert architecture_cost(space, proposals[0].arch).macs <= limit


def test_the_papers_space_is_searched():
    space = SMALL["proxylessnas"]()
    data = described(shape=(3, 24, 24), examples=8, classes=10)
    settings = quick(SETTINGS, epochs=1, batch_size=4)
    strategy = Proxyless(space, SCORE, data, settings=settings, share=0.5, every=1)
    (proposal,) = strategy.ask(1)
    assert proposal.spent.epochs == 1.0
    assert proposal.arch.space == space.name


def test_arguments_are_refused_where_they_make_no_sense():
    for arguments, message in (
        ({"form": "sum"}, "no form 'sum'"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"strength": -1.0}, "strength must be above 0"),
        ({"target": 0.0}, "target must be above 0"),
        ({"target": 0.5}, r"target must be above unit \(1\), got 0.5"),
        ({"unit": 1e9}, "cheapest network costs"),
        ({"share": 0.0}, "share must be above 0 and below 1"),
        ({"every": 3}, "every is 3, but an epoch has 2 steps"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(**arguments)
