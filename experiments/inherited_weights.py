"""How many epochs inherited weights save: children of trained networks against fresh ones.

On Fashion-MNIST (a part of it), parents of a chain and of an MBConv space are trained; children
that grew out of them by network morphisms are then trained from the parent's weights and from new
ones, for one epoch, for two, and so on, each time anew with a whole schedule of that length.
Reported is the shortest training that reaches the parent's accuracy on held-out images.

    python experiments/inherited_weights.py --out docs/results/inherited_weights
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn
from torch.utils.data import Subset

from nas.architecture import Architecture
from nas.data import Data, fashion_mnist, split
from nas.history import write_file
from nas.morphism import inherit, morphisms
from nas.space import SearchSpace, from_picks
from nas.training import Recipe, evaluate, initialised, train_until, weights
from search_spaces.chain import Chain
from search_spaces.mbconv import MBConv, Stage

STEPS = {
    "wider": ("wider",),
    "deeper": ("deeper",),
    "kernel": ("kernel",),
    "all three": ("wider", "deeper", "kernel"),
}
"""Children by the kinds of morphisms that make them, in this order."""

LENGTHS = (1, 2, 4, 6, 8, 12, 16)
"""Epochs of the trainings; those after the first that reaches the parent are left out."""

ALWAYS = 3
"""So many lengths are trained in any case, for the picture."""

COLOURS = {"wider": "#00798c", "deeper": "#d1495b", "kernel": "#edae49", "all three": "#30638e"}


@dataclass(frozen=True)
class Child:
    """What became of a child.

    Attributes:
        start: its accuracy before any training.
        inherited, fresh: its accuracy after trainings of the first ``LENGTHS``.
        reused: the share of its numbers that are the parent's.
        difference: of its outputs from the parent's, before it is trained, relative.
    """

    space: str
    kind: str
    seed: int
    parent: float
    start: float
    reused: float
    difference: float
    inherited: list[float]
    fresh: list[float]


def spaces() -> dict[str, tuple[SearchSpace, Architecture]]:
    """Each space with the architecture that the children grow out of."""
    chain = Chain(input=(1, 28, 28), depths=(3, 4), widths=(8, 16, 32))
    layers = [(3, 8, 2), (3, 16, 1), (3, 16, 2)]
    picks: dict[str, str | int | float] = {"depth": 3, "pool": "none", "dense": 0}
    for index, (kernel, width, stride) in enumerate(layers):
        place = f"conv{index}"
        picks |= {f"{place}/kernel": kernel, f"{place}/width": width, f"{place}/stride": stride}
    layout = tuple(
        Stage(("ir",), (c,), (1, 2), stride=2, kernels=(3, 5), expansions=(2, 3), squeezes=(25,))
        for c in (12, 24)
    )
    mbconv = MBConv(
        layout=layout,
        stem=8,
        head=64,
        activation="hswish",
        widths=(100,),
        dropout=0.0,
        classes=10,
        input=(1, 28, 28),
    )
    stage = {"depth": 1, "block1/kernel": 3, "block1/expansion": 2}
    small = {f"stage{n}/{label}": value for n in (1, 2) for label, value in stage.items()}
    return {
        "chain": (chain, from_picks(chain, picks)),
        "MBConv": (mbconv, from_picks(mbconv, small)),
    }


def grown(
    space: SearchSpace, arch: Architecture, kinds: tuple[str, ...], rng: np.random.Generator
) -> Architecture:
    """A child by morphisms of these kinds, each drawn from all that there are."""
    for kind in kinds:
        found = [step.child for step in morphisms(space, arch) if step.kind == kind]
        arch = found[int(rng.integers(len(found)))]
    return arch


class Trainer:
    """Trains networks on the same part of the data with the same schedule."""

    def __init__(self, data: Data, images: int, recipe: Recipe) -> None:
        self.data = data
        part, held_out = split(data, 0.2)
        self.part = Subset(part.dataset, part.indices[:images])
        self.held_out = Subset(held_out.dataset, held_out.indices[: max(100, images // 2)])
        self.recipe = recipe

    def accuracy(self, network: nn.Module) -> float:
        return evaluate(network, self.held_out)[0]

    def train(self, network: nn.Module, epochs: int, seed: int) -> float:
        """Trains with one whole schedule; the accuracy after it."""
        train_until(
            network,
            self.part,
            self.recipe,
            epochs,
            seed,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
        )
        return self.accuracy(network)

    def accuracies(
        self, network: nn.Module, start: Mapping[str, torch.Tensor], enough: float, seed: int
    ) -> list[float]:
        """After trainings of ``LENGTHS`` from the same weights, up to one that is enough."""
        found: list[float] = []
        for epochs in LENGTHS:
            network.load_state_dict(start)
            found.append(self.train(network, epochs, seed))
            if max(found) >= enough and len(found) >= ALWAYS:
                break
        return found


def difference(parent: nn.Module, child: nn.Module, x: torch.Tensor) -> float:
    """The largest difference of an output, relative to the largest output."""
    with torch.inference_mode():
        before, after = parent.eval()(x), child.eval()(x)
    return float((before - after).abs().max() / before.abs().max())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fashion-mnist", type=Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--images", type=int, default=3000, help="to train on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of a parent (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="parents a space (%(default)s)")
    parser.add_argument("--out", type=Path, help="write .md, .png and .json of this name")
    options = parser.parse_args(arguments)

    data = fashion_mnist(options.fashion_mnist)
    trainer = Trainer(data, options.images, Recipe(learning_rate=0.05))
    began = time.perf_counter()
    children: list[Child] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("children", total=2 * options.seeds * len(STEPS))
        for name, (space, arch) in spaces().items():
            for seed in range(options.seeds):
                for child in family(name, space, arch, trainer, options.epochs, seed):
                    children.append(child)
                    progress.advance(task)
    seconds = time.perf_counter() - began
    command = shlex.join(["python", "experiments/inherited_weights.py", *sys.argv[1:]])
    text = report(children, options, seconds, command)
    if options.out is not None:
        document = json.dumps({"format": 1, "children": [asdict(c) for c in children]}, indent=1)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_file(options.out.with_suffix(".json"), document.encode())
        write_file(options.out.with_suffix(".png"), picture(children))
        write_file(options.out.with_suffix(".md"), text.encode())
    print(text)


def family(
    name: str, space: SearchSpace, arch: Architecture, trainer: Trainer, epochs: int, seed: int
) -> Any:
    """Trains a parent, and yields its children."""
    parent = initialised(space, arch, seed)
    reached = trainer.train(parent, epochs, seed)
    state = weights(parent)
    images = torch.stack([trainer.held_out[index][0] for index in range(32)])
    rng = np.random.default_rng([seed, len(name)])
    for kind, kinds in STEPS.items():
        made = grown(space, arch, kinds, rng)
        given = inherit(space, arch, state, made, seed + 100, noise=0.5)
        child = initialised(space, made, seed + 100)
        new = weights(child)
        child.load_state_dict(given.weights)
        yield Child(
            name,
            kind,
            seed,
            reached,
            trainer.accuracy(child),
            given.reused,
            difference(parent, child, images),
            trainer.accuracies(child, given.weights, reached, seed + 100),
            trainer.accuracies(child, new, reached, seed + 100),
        )


def needed(accuracies: list[float], enough: float) -> int | None:
    """The epochs of the shortest training that was enough, if one was."""
    pairs = zip(LENGTHS, accuracies, strict=False)
    return next((epochs for epochs, accuracy in pairs if accuracy >= enough), None)


def report(children: list[Child], options: argparse.Namespace, seconds: float, command: str) -> str:
    """The page."""
    rows = []
    for (space, kind), group in groups(children).items():
        rows.append([space, kind, *row(group)])
    for space in dict.fromkeys(child.space for child in children):
        group = [child for child in children if child.space == space]
        rows.append([f"**{space}**", "**all**", *row(group)])
    head = "| space | child | parent's accuracy | numbers inherited | epochs, inherited "
    head += "| epochs, fresh | ratio | accuracy after 2 epochs, inherited | fresh |"
    lines = [head, "| --- " * 9 + "|", *("| " + " | ".join(cells) + " |" for cells in rows)]
    worst = max(child.difference for child in children)
    return f"""# Inherited weights against fresh ones, Fashion-MNIST

Epochs of the shortest training after which a child has the accuracy that its parent had after
{options.epochs}, from the parent's weights and from new ones: means over {options.seeds} parents.

{chr(10).join(lines)}

![accuracy by length of training](inherited_weights.png)

- Training: {options.images:,} images, SGD with one cosine from a rate of 0.05 to 0, for parent,
  inherited and fresh child alike; accuracy on {max(100, options.images // 2):,} other images.
- A training of another length is another training, with its whole cosine: tried are
  {", ".join(map(str, LENGTHS))} epochs, each from the same weights, so that the rate has come
  down wherever an accuracy is read.
- A child is made by one morphism, drawn from all of its kind, or by one of each kind in a row.
- Before it is trained a child computes what its parent does: the outputs differ by {worst:.1g} of
  the largest at most. One epoch is the least that counts.
- A child that does not reach its parent's accuracy in {LENGTHS[-1]} epochs counts as
  {2 * LENGTHS[-1]} (in brackets: how many of those there are). The ratio is that of the means.
- Not counted is what the parent cost: inheritance pays where parents are trained anyway.
- {torch.__version__.partition("+")[0]} of torch, {platform.machine()}, one thread, {seconds:.0f} s
  in all.

```
{command}
```
"""


def groups(children: list[Child]) -> Mapping[tuple[str, str], list[Child]]:
    found: dict[tuple[str, str], list[Child]] = {}
    for child in children:
        found.setdefault((child.space, child.kind), []).append(child)
    return found


def row(group: list[Child]) -> list[str]:
    cells = [
        f"{np.mean([child.parent for child in group]):.3f}",
        f"{np.mean([child.reused for child in group]):.0%}",
    ]
    means = []
    for curves in ("inherited", "fresh"):
        found = [needed(getattr(child, curves), child.parent) for child in group]
        never = sum(count is None for count in found)
        means.append(float(np.mean([count or 2 * LENGTHS[-1] for count in found])))
        cells.append(f"{means[-1]:.1f}" + (f" ({never} of {len(group)} never)" if never else ""))
    cells.append(f"{means[0] / means[1]:.2f}")
    for curves in ("inherited", "fresh"):
        cells.append(f"{np.mean([getattr(child, curves)[1] for child in group]):.3f}")
    return cells


def means(curves: list[list[float]]) -> list[float]:
    """The mean at each length that all were trained for."""
    return [float(np.mean(values)) for values in zip(*curves, strict=False)]


def picture(children: list[Child]) -> bytes:
    """Mean accuracy by length of training, inherited and fresh, a panel a space."""
    import io

    from matplotlib.figure import Figure

    names = list(dict.fromkeys(child.space for child in children))
    figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for (space, kind), group in groups(children).items():
            if space != name:
                continue
            start = float(np.mean([child.start for child in group]))
            inherited = [start, *means([child.inherited for child in group])]
            fresh = means([child.fresh for child in group])
            colour, style = COLOURS[kind], {"marker": "o", "markersize": 3}
            axes.plot([0, *LENGTHS][: len(inherited)], inherited, color=colour, label=kind, **style)
            axes.plot(LENGTHS[: len(fresh)], fresh, "--", color=colour, **style)
        parent = np.mean([child.parent for child in children if child.space == name])
        axes.axhline(parent, color="#555555", linewidth=0.8)
        axes.set(title=name, xlabel="epochs of the whole training", ylim=(parent - 0.35, None))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy, held-out images")
    panels[-1].plot([], [], "--", color="#777777", label="fresh weights")
    panels[-1].plot([], [], color="#555555", linewidth=0.8, label="parent")
    panels[-1].legend(fontsize=8, loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


if __name__ == "__main__":
    main()
