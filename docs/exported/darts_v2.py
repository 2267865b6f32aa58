"""A network of the search space darts/v1, as plain PyTorch.

Architecture:
    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3',
    1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 2)],
    normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3',
    1), ('skip_connect', 2), ('max_pool_3x3', 0), ('skip_connect', 2), ('max_pool_3x3', 1),
    ('skip_connect', 2)], reduce_concat=range(2, 6))

Input: (N, 3, 32, 32), float32.
Parameters: 246,106. MACs, for one example: 43,444,736.

Run this file to check the network against the stored input and output beside it, or

    from model import build, load

    model = build()
    model.load_state_dict(load("model.safetensors"))
    model.eval()
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


class CellNetwork(nn.Module):
    """A stem, cells that each read the two states before them, pooling and a classifier."""

    def __init__(self, stem: nn.Module, cells: nn.ModuleList, classifier: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cells
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before, last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean(dim=(2, 3)))


class CifarStem(nn.Module):
    """3×3 convolution and batch norm; both states are the same."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.conv(x))
        return x, x


class Cell(nn.Module):
    """Two states in, a new one from each node, and some of them out."""

    def __init__(
        self,
        prepare_before: nn.Module,
        prepare_last: nn.Module,
        nodes: nn.ModuleList,
        join: nn.Module,
    ) -> None:
        super().__init__()
        self.prepare_before = prepare_before
        self.prepare_last = prepare_last
        self.nodes = nodes
        self.join = join

    def forward(self, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states = [self.prepare_before(before), self.prepare_last(last)]
        for node in self.nodes:
            states.append(node(states))
        return self.join(states)


class ReLUConvBN(nn.Module):
    """ReLU, convolution that keeps the size at stride 1, batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.conv = nn.Conv2d(
            c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(F.relu(x)))


class SumOfEdges(nn.Module):
    """A node: the sum of its edges, each named by the number of the state that it reads."""

    def __init__(self, edges: nn.ModuleDict) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        terms = [edge(states[int(source)]) for source, edge in self.edges.items()]
        return sum(terms[1:], start=terms[0])


class SepConv(nn.Module):
    """ReLU, depthwise and pointwise convolution, batch norm: twice, the stride in the first."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        padding = kernel_size // 2
        self.depthwise_a = nn.Conv2d(
            c_in, c_in, kernel_size, stride, padding, groups=c_in, bias=False
        )
        self.pointwise_a = nn.Conv2d(c_in, c_in, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(c_in)
        self.depthwise_b = nn.Conv2d(
            c_in, c_in, kernel_size, padding=padding, groups=c_in, bias=False
        )
        self.pointwise_b = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm_b = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_a(self.pointwise_a(self.depthwise_a(F.relu(x))))
        return self.norm_b(self.pointwise_b(self.depthwise_b(F.relu(x))))


class DilConv(nn.Module):
    """ReLU, dilated depthwise convolution, pointwise convolution, batch norm."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, dilation: int = 2
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        padding = kernel_size // 2 * dilation
        self.depthwise = nn.Conv2d(
            c_in, c_in, kernel_size, stride, padding, dilation, groups=c_in, bias=False
        )
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


class Concatenate(nn.Module):
    """What a cell gives on: these of its states, joined along the channels."""

    def __init__(self, joined: tuple[int, ...]) -> None:
        super().__init__()
        self.joined = joined

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([states[index] for index in self.joined], dim=1)


class FactorizedReduction(nn.Module):
    """ReLU, halved size without loss: two 1×1 convolutions on shifted grids, batch norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv_a = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.conv_b = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        odd_height, odd_width = x.shape[2] % 2, x.shape[3] % 2
        shifted = x[:, :, 1:, 1:]
        if odd_height or odd_width:  # the shifted grid has a row or column less: zeros for it
            shifted = F.pad(shifted, (0, odd_width, 0, odd_height))
        return self.norm(torch.cat([self.conv_a(x), self.conv_b(shifted)], dim=1))


def build() -> nn.Module:
    """The network, with freshly initialised weights."""
    return CellNetwork(
        stem=CifarStem(c_in=3, c_out=48),
        cells=nn.ModuleList(
            [
                Cell(
                    prepare_before=ReLUConvBN(c_in=48, c_out=16, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=48, c_out=16, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=16, c_out=16, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=ReLUConvBN(c_in=48, c_out=16, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=64, c_out=16, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=16, c_out=16, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=16, c_out=16, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=ReLUConvBN(c_in=64, c_out=32, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=64, c_out=32, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.MaxPool2d(3, stride=2, padding=1),
                                        "1": nn.MaxPool2d(3, stride=2, padding=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"1": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"0": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"1": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=FactorizedReduction(c_in=64, c_out=32),
                    prepare_last=ReLUConvBN(c_in=128, c_out=32, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=32, c_out=32, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=ReLUConvBN(c_in=128, c_out=32, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=128, c_out=32, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=32, c_out=32, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=32, c_out=32, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=ReLUConvBN(c_in=128, c_out=64, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=128, c_out=64, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.MaxPool2d(3, stride=2, padding=1),
                                        "1": nn.MaxPool2d(3, stride=2, padding=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"1": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"0": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {"1": nn.MaxPool2d(3, stride=2, padding=1), "2": nn.Identity()}
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=FactorizedReduction(c_in=128, c_out=64),
                    prepare_last=ReLUConvBN(c_in=256, c_out=64, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=64, c_out=64, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
                Cell(
                    prepare_before=ReLUConvBN(c_in=256, c_out=64, kernel_size=1, stride=1),
                    prepare_last=ReLUConvBN(c_in=256, c_out=64, kernel_size=1, stride=1),
                    nodes=nn.ModuleList(
                        [
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "1": SepConv(c_in=64, c_out=64, kernel_size=3, stride=1),
                                    }
                                )
                            ),
                            SumOfEdges(
                                edges=nn.ModuleDict(
                                    {
                                        "0": nn.Identity(),
                                        "2": DilConv(
                                            c_in=64, c_out=64, kernel_size=3, stride=1, dilation=2
                                        ),
                                    }
                                )
                            ),
                        ]
                    ),
                    join=Concatenate(joined=(2, 3, 4, 5)),
                ),
            ]
        ),
        classifier=nn.Linear(256, 10),
    )


DTYPES = {"F32": torch.float32, "I64": torch.int64}


def load(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file: the header's length in 8 bytes, the header in JSON, the data."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    data = torch.frombuffer(content, dtype=torch.uint8)[start:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def main(model: nn.Module) -> None:
    """Loads the weights beside this file, checks the model, prints its size."""
    folder = Path(__file__).parent
    try:
        model.load_state_dict(load(folder / "model.safetensors"))
        check = load(folder / "check.safetensors")
        x, expected = check["input"], check["output"]
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        sys.exit(f"FAILED: model.safetensors or check.safetensors is missing or damaged: {error}")
    model.eval()
    # In this form the counter sees the products of attention too.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(x)
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters()):,}")
    print(f"MACs: {counter.get_total_flops() // 2 // len(x):,}")
    difference = (output - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(f"largest difference from the stored output: {difference:.3g} (of {largest:.3g})")
    if not difference <= 1e-4 * largest:  # not >, which would let NaN pass
        sys.exit("FAILED: the output is not the stored one; are the weights damaged?")


if __name__ == "__main__":
    main(build())
