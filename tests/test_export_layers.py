"""Torch's own layers are spelt as they were written."""

from __future__ import annotations

import json

import pytest
import torch
from exporting import export_one, isolated
from torch import nn
from torch.nn import functional as F

from nas.errors import ExportError
from nas.export.definitions import Definitions
from nas.export.expression import spell
from nas.export.verify import verify

LAYERS = """
nn.Conv1d(4, 6, 3)
nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False)
nn.Conv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 1), padding_mode="reflect")
nn.Conv2d(4, 6, 3, padding="same")
nn.Conv2d(4, 6, 3, stride=3)
nn.Conv3d(4, 6, 3, padding=(1, 1, 0), bias=False)
nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1)
nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
nn.ConvTranspose3d(4, 6, (1, 2, 3), dilation=2)
nn.Linear(4, 6)
nn.Linear(4, 6, bias=False)
nn.Bilinear(4, 5, 6, bias=False)
nn.BatchNorm1d(4)
nn.BatchNorm2d(4, eps=0.001, momentum=0.01)
nn.BatchNorm2d(4, affine=False)
nn.BatchNorm3d(4, momentum=None, track_running_stats=False)
nn.GroupNorm(2, 4)
nn.GroupNorm(2, 4, eps=0.001, affine=False)
nn.LayerNorm(4)
nn.LayerNorm((4, 4), eps=1e-06, bias=False)
nn.LayerNorm((4, 5), elementwise_affine=False)
nn.RMSNorm(4)
nn.RMSNorm((4, 5), eps=1e-06, elementwise_affine=False)
nn.InstanceNorm1d(4)
nn.InstanceNorm2d(4, affine=True)
nn.InstanceNorm3d(4, track_running_stats=True)
nn.LocalResponseNorm(3, alpha=0.01)
nn.MaxPool1d(3)
nn.MaxPool2d(3, stride=2, padding=1)
nn.MaxPool2d((3, 2), stride=1, dilation=2, ceil_mode=True)
nn.MaxPool3d(2)
nn.AvgPool1d(3)
nn.AvgPool1d(3, stride=1)
nn.AvgPool2d(2)
nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
nn.AvgPool3d(2, divisor_override=3)
nn.LPPool1d(2, 3)
nn.LPPool2d(2, 3, stride=1)
nn.FractionalMaxPool2d(3, output_ratio=(0.5, 0.5))
nn.AdaptiveAvgPool1d(1)
nn.AdaptiveAvgPool2d(1)
nn.AdaptiveAvgPool2d((None, 7))
nn.AdaptiveAvgPool3d((1, 2, 3))
nn.AdaptiveMaxPool1d(2)
nn.AdaptiveMaxPool2d((3, 4))
nn.AdaptiveMaxPool3d(2)
nn.ReLU()
nn.ReLU(inplace=True)
nn.ReLU6()
nn.LeakyReLU(negative_slope=0.2)
nn.PReLU()
nn.PReLU(num_parameters=4)
nn.RReLU()
nn.ELU(alpha=0.5)
nn.CELU()
nn.SELU()
nn.GELU()
nn.GELU(approximate="tanh")
nn.GLU(dim=1)
nn.SiLU()
nn.Mish(inplace=True)
nn.Hardswish()
nn.Hardsigmoid()
nn.Hardtanh(min_val=-2.0)
nn.Hardshrink()
nn.Softshrink(lambd=0.1)
nn.Tanhshrink()
nn.Sigmoid()
nn.LogSigmoid()
nn.Tanh()
nn.Softplus(beta=2.0)
nn.Softsign()
nn.Softmax(dim=1)
nn.Softmin(dim=1)
nn.Softmax2d()
nn.LogSoftmax(dim=-1)
nn.Threshold(0.1, 20)
nn.Dropout()
nn.Dropout(p=0.1, inplace=True)
nn.Dropout1d(p=0.1)
nn.Dropout2d(p=0.1)
nn.Dropout3d(p=0.1)
nn.AlphaDropout(p=0.1)
nn.FeatureAlphaDropout(p=0.1)
nn.Flatten()
nn.Flatten(start_dim=2)
nn.Unflatten(1, (2, 2))
nn.Unflatten(1, (2,))
nn.Fold((4, 5), 2, stride=2)
nn.Unfold(3, padding=1)
nn.Upsample(scale_factor=2.0)
nn.Upsample(size=(8, 8), mode="bilinear", align_corners=True)
nn.UpsamplingBilinear2d(scale_factor=2.0)
nn.UpsamplingNearest2d(size=8)
nn.PixelShuffle(2)
nn.PixelUnshuffle(2)
nn.ChannelShuffle(2)
nn.ReflectionPad1d(1)
nn.ReflectionPad2d((1, 2, 3, 4))
nn.ReplicationPad3d(1)
nn.CircularPad2d(1)
nn.ZeroPad2d((1, 0, 1, 0))
nn.ConstantPad2d(1, 0.5)
nn.CosineSimilarity(dim=2)
nn.Embedding(5, 4)
nn.Embedding(5, 4, padding_idx=0, max_norm=1.0)
nn.EmbeddingBag(5, 4, mode="sum")
nn.Identity()
nn.GRUCell(4, 5, bias=False)
nn.LSTMCell(4, 5)
nn.RNNCell(4, 5, nonlinearity="relu")
nn.MultiheadAttention(8, 2)
nn.MultiheadAttention(8, 2, dropout=0.1, bias=False, kdim=4, vdim=6, batch_first=True)
nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True)
nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
nn.TransformerEncoderLayer(8, 2, dropout=0.2, activation=F.gelu, batch_first=True, norm_first=True)
nn.TransformerEncoderLayer(8, 2, activation=nn.SiLU(), layer_norm_eps=0.001, bias=False)
nn.TransformerDecoderLayer(8, 2, dim_feedforward=16, batch_first=True)
nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 3)
nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2), 2, norm=nn.LayerNorm(8))
nn.Sequential()
nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
nn.Sequential(nn.ReLU(), *(nn.Linear(2, 2) for _ in range(3)))
nn.Sequential(OrderedDict([("conv", nn.Conv2d(1, 2, 3)), ("act", nn.ReLU())]))
nn.ModuleList()
nn.ModuleList([nn.ReLU(), nn.ReLU()])
nn.ModuleList([nn.ReLU(), *(nn.Linear(2, 2) for _ in range(3))])
nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
nn.ModuleDict()
nn.ModuleDict({"a": nn.ReLU(), "b c": nn.Linear(2, 2)})
""".strip().splitlines()


def evaluate(text: str) -> nn.Module:
    import collections

    scope = {"nn": nn, "F": F, "torch": torch, "OrderedDict": collections.OrderedDict}
    return eval(text, scope)


@pytest.mark.parametrize("text", LAYERS)
def test_torchs_layers_are_spelt_as_they_were_written(text):
    original = evaluate(text)
    code = spell(original, Definitions())
    assert code.flat() == text
    rebuilt = evaluate("\n".join(code.lines(0)))
    assert repr(rebuilt) == repr(original)
    shapes = {name: tensor.shape for name, tensor in original.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("nn.Conv2d(4, 6, (3, 3), (2, 2))", "nn.Conv2d(4, 6, 3, stride=2)"),
        ("nn.MaxPool2d((2, 2), (2, 2))", "nn.MaxPool2d(2)"),
        ("nn.AdaptiveAvgPool2d((1, 1))", "nn.AdaptiveAvgPool2d(1)"),
        ("nn.LayerNorm((4,))", "nn.LayerNorm(4)"),
        ("nn.ConstantPad1d((1, 1), 0)", "nn.ConstantPad1d(1, 0)"),
        ("nn.Dropout(0.5)", "nn.Dropout()"),
        ("nn.Identity(3, a=4)", "nn.Identity()"),
        ("nn.TransformerEncoderLayer(8, 2, activation='relu')", "nn.TransformerEncoderLayer(8, 2)"),
    ],
)
def test_the_shortest_spelling_is_taken(given, spelt):
    assert spell(evaluate(given), Definitions()).flat() == spelt


def test_attention_is_exported_and_counted(tmp_path):
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 8),
            nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True),
            nn.Flatten(),
            nn.Linear(40, 2),
        )

    folder = export_one(make, tmp_path / "out", (5, 4))
    done = isolated(str(folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    by_hand = 5 * 4 * 8 + 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8 + 2 * 5 * 8 * 16 + 40 * 2
    assert f"MACs: {by_hand:,}\n" in done.stdout
    assert json.loads((folder / "architecture.json").read_text())["macs"] == by_hand


def test_source_of_another_network_is_refused():
    source = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(4, {}){})\n"
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(verify(source.format(2, ""), model, x), model(x))
        with pytest.raises(ExportError, match="'out_features' of module '0'"):
            verify(source.format(3, ""), model, x)
        with pytest.raises(ExportError, match="module '1' is not made"):
            verify(source.format(2, ", nn.ReLU()"), model, x)
        with pytest.raises(ExportError, match="does not run: NameError"):
            verify(source.format("two", ""), model, x)
        model.register_forward_hook(
            lambda module, args, output: torch.nextafter(output, torch.tensor(9.0))
        )
        with pytest.raises(ExportError, match="output is not the original's"):
            verify(source.format(2, ""), model, x)
