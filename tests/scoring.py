"""Small networks and batches that the tests of zero-cost proxies share."""

from __future__ import annotations

import torch
from torch import nn

from nas.space import network, parse
from nas.zero_cost import Batch
from search_spaces.nasbench201 import NasBench201

SPACE = NasBench201(channels=4, cells=1, input=(3, 8, 8))
RICH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|"
DISCONNECTED = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def batch(size=8, shape=(3, 8, 8), classes=10):
    images = Batch.noise(shape, size, seed=3).images
    return Batch(images, torch.arange(size) % classes)


def built(text=RICH, space=SPACE, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return network(space, parse(space, text))


def plain(*layers, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*[make() for make in layers])


def small():
    return plain(
        lambda: nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU,
        lambda: nn.Conv2d(5, 4, 3, stride=2),
        nn.ReLU,
        nn.Flatten,
        lambda: nn.Linear(36, 10),
    )
