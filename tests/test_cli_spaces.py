"""The commands about spaces: list, show-space, cost with published networks and settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_spaces import SMALL
from test_cli import Result, nas

from nas import registry
from nas.cli import settings_spread
from nas.points import points_of

__all__ = ["nas"]  # a fixture

# Parameters and MACs: facts of the official code or of torchvision's and timm's networks.
PUBLISHED = {
    "darts:DARTS_V1": (3_169_414, 500_987_520),
    "darts:DARTS_V2": (3_349_342, 528_359_040),
    "darts:PC_DARTS_cifar": (3_634_678, 556_670_592),
    "mbconv:mobilenet_v2": (3_504_872, 300_774_272),
    "mbconv:mobilenet_v2_1_4": (6_108_776, 582_195_824),
    "mbconv:mobilenet_v3_large": (5_483_032, 216_589_760),
    "mbconv:mobilenet_v3_small": (2_542_856, 56_510_400),
    "mbconv:mnasnet_b1": (4_383_312, 314_415_872),
    "mbconv:efficientnet_b0": (5_288_548, 385_814_752),
    "mbconv:proxyless_mobile": (4_080_512, 320_427_584),
    "mbconv:proxyless_cpu": (4_361_648, 439_243_864),
    "mbconv:proxyless_gpu": (7_119_848, 465_260_160),
    "spos:spos_330m": (3_558_464, 322_918_720),
}


def cost_of(nas: Callable[..., Result], *arguments: str) -> dict[str, int]:
    result = nas("cost", *arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.mark.parametrize("reference", PUBLISHED)
def test_published_networks_cost_what_is_published(
    nas: Callable[..., Result], reference: str
) -> None:
    found = cost_of(nas, reference)
    assert (found["parameters"], found["macs"]) == PUBLISHED[reference]


def test_every_named_point_is_an_architecture_of_its_space(nas: Callable[..., Result]) -> None:
    names = [f"{space}:{point}" for space in registry.names("spaces") for point in points_of(space)]
    assert len(names) >= len(PUBLISHED) + 5
    for name in set(names) - set(PUBLISHED):
        assert cost_of(nas, name)["parameters"] > 100_000


def test_settings_change_a_published_networks_sizes(nas: Callable[..., Result]) -> None:
    settings = ["channels=48", "cells=14", "stem=imagenet", "classes=1000", "input=3x224x224"]
    at_once = cost_of(nas, "darts:DARTS_V2", "--set", *settings)
    one_by_one = cost_of(nas, "darts:DARTS_V2", *(f"--set={setting}" for setting in settings))
    assert at_once == one_by_one
    # The paper gives 4.7 million parameters for its ImageNet network.
    assert at_once["parameters"] == 4_718_752
    small = cost_of(nas, "mbconv:mobilenet_v2", "--set", "classes=10", "input=3x96x96")
    assert small["parameters"] == 3_504_872 - (1280 + 1) * 990


@pytest.mark.parametrize(
    ("space", "notation", "same_as"),
    [
        ("spos", "(2,1,0,1,2,0,2,0,2,0,2,3,0,0,0,0,3,2,3,3)", "spos:spos_330m"),
        (
            "darts",
            "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
            "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
            "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
            "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
            "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
            "reduce_concat=[2, 3, 4, 5])",
            "darts:DARTS_V2",
        ),
        (
            "nasbench101",
            "[[0,1,1,1,0,1,0],[0,0,0,0,0,0,1],[0,0,0,0,0,0,1],[0,0,0,0,1,0,0],[0,0,0,0,0,0,1],"
            "[0,0,0,0,0,0,1],[0,0,0,0,0,0,0]] ['input', 'conv1x1-bn-relu', 'conv3x3-bn-relu', "
            "'conv3x3-bn-relu', 'conv3x3-bn-relu', 'maxpool3x3', 'output']",
            "nasbench101:inception",
        ),
    ],
)
def test_the_literatures_notation_is_read(
    nas: Callable[..., Result], tmp_path: Path, space: str, notation: str, same_as: str
) -> None:
    assert cost_of(nas, space, "--arch", notation) == cost_of(nas, same_as)


def test_layers_sum_up_to_the_network(nas: Callable[..., Result]) -> None:
    found = cost_of(nas, "mbconv:mobilenet_v2", "--layers", "2")
    first, *inner = found["layers"]
    assert first["macs"] == found["macs"]
    assert first["parameters"] == found["parameters"]
    leaves = [row for row in inner if row["path"].count(".") == 1]
    assert sum(row["macs"] for row in leaves) == found["macs"]
    table = nas("cost", "mbconv:mobilenet_v2", "--layers", "2").out
    assert "300,774,272" in table
    assert "stage7_block1" in table
    assert nas("cost", "mbconv", "--layers", "1").code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cost", "darts:DARTS_V3"], "did you mean 'DARTS_V"),
        (["cost", "dart:DARTS_V2"], "cannot be imported"),
        (["cost", "chain:x"], "'chain' names no published networks"),
        (["cost", "darts:DARTS_V2", "--arch", "x"], "not both"),
        (["cost", "darts:DARTS_V2", "--set", "chanels=3"], "did you mean 'channels'"),
        (["cost", "darts:DARTS_V2", "--set", "stem=imagnet"], "stem"),
        (["show-space", "dartz"], "did you mean 'darts'"),
        (["show-space", "darts", "--out", "x.jpg"], "svg"),
        (["list", "space"], "did you mean 'spaces'"),
    ],
)
def test_mistakes_are_named(nas: Callable[..., Result], arguments: list[str], says: str) -> None:
    result = nas(*arguments)
    assert result.code == 2
    assert says in result.err


def test_list_shows_size_choices_paper_and_points(nas: Callable[..., Result]) -> None:
    found = json.loads(nas("list", "spaces", "--json").out)
    assert set(SMALL) <= set(found)
    for name in SMALL:
        entry = found[name]
        assert not entry["broken"], entry
        assert entry["choices"] > 0
        assert entry["size"] > 1000 or (name, entry["size"]) == ("slimmable_mobilenet_v2", 4)
        assert entry["summary"]
        assert entry["paper"] or name == "chain"
    assert found["nasbench201"]["size"] == 15625
    assert found["fbnet"]["size"] == 9**22
    assert found["spos"]["size"] == 4**20
    assert set(found["darts"]["points"]) >= {"DARTS_V1", "DARTS_V2", "PC_DARTS_cifar"}
    table = nas("list", "spaces").out
    assert "15,625" in table
    assert "1.1e18" in table


def test_show_space_prints_choices_and_draws(nas: Callable[..., Result], tmp_path: Path) -> None:
    result = nas("show-space", "nasbench201", "--seed", "3")
    assert result.code == 0, result.err
    assert "15,625 architectures, 6 choices:" in result.out
    assert "0->1 … 2->3 (6): none, skip_connect, nor_conv_1x1" in result.out
    picture = (tmp_path / "nasbench201.svg").read_text()
    assert picture.startswith("<?xml")
    drawn = result.out.split("drawn: ")[1].splitlines()[0]
    assert nas("cost", "nasbench201", "--arch", drawn).code == 0
    assert nas("show-space", "darts:DARTS_V1", "--out", "v1.png").code == 0
    assert (tmp_path / "v1.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(nas("show-space", "spos", "--json").out)
    assert len(document["choices"]) == 20
    assert document["size"] == 4**20


def test_settings_may_follow_each_other() -> None:
    assert settings_spread(["cost", "x", "--set", "a=1", "b=2", "--json"]) == [
        "cost", "x", "--set", "a=1", "--set", "b=2", "--json",
    ]  # fmt: skip
    untouched = ["search", "c.yaml", "--set", "a=1", "--set", "b=2", "--out", "a=b"]
    assert settings_spread(untouched) == untouched


@pytest.mark.parametrize("arguments", [["list", "spaces"], ["cost", "darts:DARTS_V2"]])
def test_what_is_about_spaces_imports_no_cluster(arguments: list[str]) -> None:
    # In a process of its own: other tests may have imported ray into this one.
    code = f"import sys; sys.argv = ['nas', *{arguments!r}]; from nas.cli import main; main()"
    code = f"try:\n    {code}\nfinally:\n    print('ray' in sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "False"
    assert ran.stdout
