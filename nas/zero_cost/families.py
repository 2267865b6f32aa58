"""Every proxy by name, and the one way they are run: on a borrowed network, under a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nas.cost import count
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.training import reproducible
from nas.trial import NotFinite
from nas.zero_cost.az_nas import az_nas_scores
from nas.zero_cost.gradients import gradient_scores
from nas.zero_cost.grasp import grasp_score
from nas.zero_cost.jacobian import jacobian_score
from nas.zero_cost.naswot import naswot_score
from nas.zero_cost.probe import LOWEST, Batch, Disconnected, borrowed
from nas.zero_cost.synflow import synflow_score
from nas.zero_cost.zen import zen_score
from nas.zero_cost.zico import zico_score

Run = Callable[[nn.Module, Batch, frozenset[str], str], Mapping[str, float]]
"""Scores a borrowed network: the batch, which of its proxies are wanted, the network's name."""

AZ_NAS = ("expressivity", "progressivity", "trainability", "macs")
"""The four proxies of AZ-NAS, which a population is ranked by."""


@dataclass(frozen=True)
class Family:
    """Proxies that one pass gives together.

    Attributes:
        proxies: their names.
        needs: what of a batch: nothing but its shape, images, or labels too.
    """

    proxies: tuple[str, ...]
    needs: Literal["nothing", "images", "labels"]
    run: Run


def _counts(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    cost = count(network, tuple(batch.images.shape[1:]))
    found = {"params": float(cost.parameters), "macs": float(cost.macs)}
    return {name: found[name] for name in wanted}


FAMILIES = (
    Family(("params", "macs"), "nothing", _counts),
    Family(("grad_norm", "snip", "fisher"), "labels", gradient_scores),
    Family(("grasp",), "labels", grasp_score),
    Family(("synflow",), "nothing", synflow_score),
    Family(("jacob_cov",), "images", jacobian_score),
    Family(("naswot",), "images", naswot_score),
    Family(("zico",), "labels", zico_score),
    Family(("zen",), "nothing", zen_score),
    Family(("expressivity", "progressivity", "trainability"), "nothing", az_nas_scores),
)

PROXIES: Mapping[str, Family] = {name: family for family in FAMILIES for name in family.proxies}
"""Every proxy's family."""


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple; ``ConfigError`` for one that is unknown or twice, or for none."""
    checked = tuple(names)
    if not checked:
        raise ConfigError(f"there are no proxies: {nearest('', PROXIES)}")
    for name in checked:
        if name not in PROXIES:
            raise ConfigError(f"there is no proxy {name!r}: {nearest(name, PROXIES)}")
        if checked.count(name) > 1:
            raise ConfigError(f"proxy {name!r} is given twice")
    return checked


@dataclass(frozen=True)
class Scored:
    """What proxies say of a network.

    Attributes:
        values: the scores by proxy.
        connected: whether the output depends on the input, as far as the proxies asked for ran
            the network; counts do not.
        milliseconds: what each family took on the clock, under its proxies' names joined by "+".
    """

    values: Mapping[str, float]
    connected: bool
    milliseconds: Mapping[str, float]


def score(
    name: str, network: nn.Module, batch: Batch, seed: int = 0, where: str | None = None
) -> float:
    """One proxy of a network; see ``scores``."""
    return scores((name,), network, batch, seed, where)[name]


def scores(
    names: Iterable[str],
    network: nn.Module,
    batch: Batch,
    seed: int = 0,
    where: str | None = None,
) -> dict[str, float]:
    """Scores a network with several proxies; proxies of one family share their pass.

    Args:
        names: of ``PROXIES``.
        network: any network of (N, …) to (N, classes), or to a tuple that begins with that. It is
            exactly as it was afterwards.
        batch: what it is scored with; proxies that need no data take its shape alone.
        seed: of what is drawn (weights, noise, dropout), anew for each family, so that a score
            does not depend on what else is asked for. The global random state is left alone.
        where: the network's name, for messages.

    Returns:
        The scores; larger is better. ``LOWEST`` where the output does not depend on the input.

    Raises:
        ConfigError: an unknown proxy.
        UnsupportedRequest: the network has not what a proxy needs, or the batch no labels.
        NotFinite: a score is NaN or infinite; the message names the proxy.
    """
    return dict(measured(names, network, batch, seed, where).values)


def measured(
    names: Iterable[str],
    network: nn.Module,
    batch: Batch,
    seed: int = 0,
    where: str | None = None,
) -> Scored:
    """``scores``, with whether the network is connected and what each family took."""
    wanted = check_names(names)
    place = where or type(network).__name__
    found: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    connected = True
    for family in FAMILIES:
        mine = frozenset(family.proxies) & frozenset(wanted)
        if not mine:
            continue
        if family.needs == "labels" and batch.labels is None:
            raise UnsupportedRequest(f"{'/'.join(sorted(mine))} of {place}: it needs labelled data")
        start = time.perf_counter()
        with reproducible(seed, torch.get_num_threads()), borrowed(network):
            used = batch
            if family.needs == "nothing":
                used = Batch(torch.randn_like(batch.images))
            try:
                values = family.run(network, used, mine, place)
            except Disconnected:
                connected = False
                values = dict.fromkeys(mine, LOWEST)
        label = "+".join(name for name in family.proxies if name in mine)
        milliseconds[label] = 1000 * (time.perf_counter() - start)
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} of {place} is {value}")
            found[name] = value
    return Scored({name: found[name] for name in wanted}, connected, milliseconds)
