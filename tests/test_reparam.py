"""Blocks with branches in training: merged they compute the same, and so they are exported."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
from exporting import PICK, One, assert_clean, export_one, isolated, randomised, unused
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.cost import count
from nas.errors import ExportError
from nas.export import export
from nas.export.merge import check_merged, merge
from nas.layers import GlobalAveragePool
from nas.layers.reparam import RepGhostBottleneck, RepGhostModule, RepVGGBlock
from nas.operations import parse_operation
from nas.space import Legal, network, next_choice

BLOCKS = {
    "identity": lambda: RepVGGBlock(8, 8),
    "wider": lambda: RepVGGBlock(8, 12),
    "halving": lambda: RepVGGBlock(8, 8, stride=2),
    "grouped": lambda: RepVGGBlock(8, 8, groups=4, activation="swish"),
    "grouped, wider": lambda: RepVGGBlock(8, 12, groups=2, activation="identity"),
    "module": lambda: RepGhostModule(8, 6, 5),
    "linear module": lambda: RepGhostModule(8, 6, activation="identity"),
    "bottleneck": lambda: RepGhostBottleneck(8, 8),
    "bottleneck, wider": lambda: RepGhostBottleneck(8, 10, kernel_size=5, expansion=3.0),
    "bottleneck, halving": lambda: RepGhostBottleneck(8, 12, stride=2, se_ratio=0.25),
}


def trained(make, seed: int) -> nn.Module:
    """With every weight and statistic away from what it begins with."""
    block = make()
    block.load_state_dict(randomised(block, seed))
    return block.eval()


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("name", BLOCKS)
def test_merged_is_the_same_function(name, size):
    for seed in range(5):
        block = trained(BLOCKS[name], seed)
        before = copy.deepcopy(block.state_dict())
        merged = block.merged()
        x = torch.randn(3, 8, *size)
        with torch.no_grad():
            expected, found = block(x), merged(x)
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5
        for key, tensor in block.state_dict().items():
            assert torch.equal(tensor, before[key]), "merging changed the block"
        own = {tensor.data_ptr() for tensor in block.state_dict().values()}
        assert not own & {tensor.data_ptr() for tensor in merged.state_dict().values()}


@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_of_training_is_left(name):
    merged = BLOCKS[name]().merged()
    assert not [module for module in merged.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not [module for module in merged.modules() if hasattr(module, "merged")]
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_merged_costs_are_those_of_the_convolutions_alone():
    before, after = (
        count(RepVGGBlock(8, 8), (8, 6, 6)),
        count(RepVGGBlock(8, 8).merged(), (8, 6, 6)),
    )
    assert (before.parameters, before.macs) == (10 * 64 + 3 * 16, 10 * 64 * 36)
    assert (after.parameters, after.macs) == (9 * 64 + 8, 9 * 64 * 36)


def test_a_norm_without_statistics_cannot_be_merged():
    block = RepVGGBlock(8, 8)
    block.branches[2] = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="without running statistics cannot be merged"):
        block.merged()


# ------------------------------------------------------------------------ whole networks


class Twice(nn.Module):
    """A user's module: one block in two places, and its own inference form of another."""

    def __init__(self, block: nn.Module, scale: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.again = block
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(self.again(self.block(x)))


class TwoScales(nn.Module):
    """The user's own: a product of two factors, which is one at inference."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.tensor(2.0))
        self.other = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.one * self.other

    def merged(self) -> nn.Module:
        return OneScale(float(self.one * self.other))


class OneScale(nn.Module):
    """One factor."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Wrong(TwoScales):
    """One whose inference form is another function."""

    def merged(self) -> nn.Module:
        return OneScale(5.0)


class Lost(TwoScales):
    """One whose inference form is none."""

    def merged(self) -> nn.Module:
        return None  # as a function that forgets to return


def test_all_that_can_be_merged_is_wherever_it_stands():
    model = nn.Sequential(Twice(RepVGGBlock(8, 8), TwoScales()), nn.Conv2d(8, 8, 1))
    model.load_state_dict(randomised(model, 1))
    model.eval()
    before = copy.deepcopy(model.state_dict())
    merged = merge(model)
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), model(x), rtol=1e-4, atol=1e-4)
    assert merged[0].block is merged[0].again
    assert isinstance(merged[0].block, nn.Sequential)
    assert isinstance(merged[0].scale, OneScale)
    assert isinstance(model[0].block, RepVGGBlock)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert not [module for module in merged.modules() if module.training]
    assert merge(nn.Sequential(RepVGGBlock(8, 8)).train())[0].training


def test_a_network_without_branches_is_copied():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    merged = merge(model)
    assert list(merged.state_dict()) == list(model.state_dict())
    assert merged[0].weight.data_ptr() != model[0].weight.data_ptr()


def test_a_network_that_is_a_block_is_merged():
    assert isinstance(merge(RepVGGBlock(8, 8)), nn.Sequential)


def test_a_merged_that_gives_nothing_is_refused():
    with pytest.raises(ExportError, match=r"Lost\.merged\(\) gives a NoneType"):
        merge(nn.Sequential(Lost()))


def test_a_merged_that_is_another_function_is_never_written(tmp_path):
    with pytest.raises(ExportError, match=r"differs by .* merged.. is not what it computes"):
        export_one(Wrong, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_a_difference_of_a_ten_thousandth():
    block = trained(lambda: RepVGGBlock(8, 8), 0)
    merged, x = block.merged(), torch.randn(2, 8, 6, 6)
    check_merged(block, merged, x)
    with torch.no_grad():
        merged[0].weight.mul_(1.0001)
    with pytest.raises(ExportError, match="merged network's output differs"):
        check_merged(block, merged, x)
    with torch.no_grad():
        merged[0].weight.fill_(float("nan"))
    with pytest.raises(ExportError, match="differs by nan"):
        check_merged(block, merged, x)


def test_a_users_block_is_exported_in_its_inference_form(tmp_path):
    weights = {"one": torch.tensor(4.0), "other": torch.tensor(0.5)}
    folder = export(One(TwoScales), PICK, tmp_path / "out", weights)
    source = (folder / "model.py").read_text()
    assert "return OneScale(scale=2.0)" in source
    assert "TwoScales" not in source
    assert safetensors.torch.load_file(folder / "model.safetensors") == {}


# ----------------------------------------------------------------------- spaces of blocks

OPTIONS = ("repvgg_o12", "repghost_e2_o12_se0.25", "conv_k3_o12", "repvgg_s2_o12")


@dataclass(frozen=True)
class Blocks:
    """Two slots, each a block with branches or a convolution."""

    input: tuple[int, ...] = (3, 8, 8)
    classes: int = 4

    name = "blocks/v1"
    choices = (Choice("first", OPTIONS), Choice("second", OPTIONS))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def build(self, builder: Builder) -> nn.Module:
        blocks = [
            builder.slot(label, {text: parse_operation(text).factory(c) for text in OPTIONS})
            for label, c in (("first", 3), ("second", 12))
        ]
        return nn.Sequential(*blocks, GlobalAveragePool(), nn.Linear(12, self.classes))


@pytest.mark.parametrize(
    "picks",
    [("repvgg_o12", "repghost_e2_o12_se0.25"), ("repvgg_s2_o12", "repvgg_o12")],
)
def test_a_space_of_branches_is_exported_without_them(picks, tmp_path):
    space = Blocks()
    arch = Architecture(space.name, (("first", picks[0]), ("second", picks[1])))
    model = network(space, arch)
    weights = randomised(model, 3)
    model.load_state_dict(weights)
    folder = export(space, arch, tmp_path / "out", weights)
    source = (folder / "model.py").read_text()
    for word in ("RepVGG", "RepGhost", "BatchNorm", "merged"):
        assert word not in source
    assert unused(source) == set()
    assert_clean(folder)

    merged = merge(model.eval())
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    assert set(merged.state_dict()) == set(stored)
    for name, tensor in merged.state_dict().items():
        assert torch.equal(stored[name], tensor)
    cost, full = count(merged, space.input), count(model, space.input)
    document = json.loads((folder / "architecture.json").read_text())
    assert (document["parameters"], document["macs"]) == (cost.parameters, cost.macs)
    assert cost.parameters < full.parameters
    assert cost.macs < full.macs

    check = safetensors.torch.load_file(folder / "check.safetensors")
    with torch.no_grad():
        assert torch.equal(merged(check["input"]), check["output"])
        expected = model(check["input"])
    assert float((check["output"] - expected).abs().max() / expected.abs().max()) <= 1e-5
    done = isolated(str(folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"parameters: {cost.parameters:,}\nMACs: {cost.macs:,}\n" in done.stdout
    assert "largest difference from the stored output: 0 (of " in done.stdout
