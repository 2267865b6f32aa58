"""The published differentiable searches, from data to an exported network.

Searches the space's search network with a gradient strategy (every epoch's architecture is a
trial of the run, which resumes where it was killed), takes the architecture of the last epoch,
trains its full network from new weights, tests it and exports it.

    python experiments/darts.py --strategy pc_darts --cifar10 FOLDER        # full size: a GPU
    python experiments/darts.py --strategy darts --small                    # minutes on one core
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluators.cost import CostEvaluator
from nas import Budget, History, Serial, minimize, retrain_and_export, watch
from nas.data import Data, cifar10, digits, fashion_mnist
from nas.space import SearchSpace, format_architecture
from search_spaces.darts import Darts
from search_spaces.nasbench201 import NasBench201
from strategies.beta_darts import BetaDarts
from strategies.darts import Darts as DartsStrategy
from strategies.drnas import DrNas
from strategies.gdas import Gdas
from strategies.pc_darts import PcDarts
from strategies.snas import Snas

STRATEGIES: dict[str, tuple[type, dict[str, Any]]] = {
    "darts": (DartsStrategy, {"order": 1}),
    "darts_second_order": (DartsStrategy, {"order": 2}),
    "pc_darts": (PcDarts, {}),
    "gdas": (Gdas, {}),
    "snas": (Snas, {}),
    "drnas": (DrNas, {}),
    "beta_darts": (BetaDarts, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=("darts", "nasbench201"), default="darts")
    parser.add_argument("--strategy", choices=STRATEGIES, default="darts")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's files")
    parser.add_argument("--fashion-mnist", type=Path, help="folder of Fashion-MNIST's files")
    parser.add_argument("--small", action="store_true", help="small networks, few epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the run's folder")
    options = parser.parse_args()

    data = images(options)
    search_space, full_space = spaces(options.space, data, options.small)
    kind, arguments = STRATEGIES[options.strategy]
    settings = kind.settings
    if options.small:
        rest = round(3 * settings.warmup_epochs / settings.epochs)
        settings = replace(settings, epochs=3, warmup_epochs=rest, batch_size=64)
    # The order in which the front is shown; what the strategy follows is the data.
    objectives = (minimize("macs"), minimize("parameters"))
    strategy = kind(search_space, objectives, data, options.seed, settings=settings, **arguments)
    history = History(options.out or f"runs/{options.strategy}_{options.space}")
    budget = Budget(trials=settings.epochs)
    for trial in watch(strategy, CostEvaluator(full_space), Serial(), budget, history):
        print(trial)
    arch = history.trials[-1].arch
    print(f"found: {format_architecture(full_space, arch)}")
    epochs = 3 if options.small else 600
    folder, facts = retrain_and_export(
        full_space, arch, data, history.folder / "network", epochs=epochs, seed=options.seed
    )
    print(f"{facts}\nnetwork: {folder}")


def images(options: argparse.Namespace) -> Data:
    """The data set that the options name; digits where they name none."""
    if options.cifar10:
        return cifar10(options.cifar10)
    return fashion_mnist(options.fashion_mnist) if options.fashion_mnist else digits()


def spaces(name: str, data: Data, small: bool) -> tuple[SearchSpace, SearchSpace]:
    """The network that is searched on, and the one that is trained afterwards."""
    shape: dict[str, Any] = {"input": data.input, "classes": data.classes}
    if name == "nasbench201":
        full = NasBench201(channels=8 if small else 16, cells=1 if small else 5, **shape)
        return full, full
    if small:
        return Darts(channels=4, cells=3, **shape), Darts(channels=8, cells=3, **shape)
    return (
        Darts(channels=16, cells=8, **shape),
        Darts(channels=36, cells=20, auxiliary=True, drop_path=0.2, **shape),
    )


if __name__ == "__main__":
    main()
