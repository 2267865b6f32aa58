"""What each layer of a network costs, as a tree."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas.cost.counting import Tally, trace
from nas.cost.memory import tensors_in
from nas.cost.weights import kept_tensors

_PLAIN = (int, float, bool, str, tuple)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One module of a network.

    Attributes:
        path: its name in the network; ``""`` is the network itself.
        depth: how many modules it is inside of.
        type: its class, with the arguments that it shows.
        output: the shape of its (first) output, with the batch of 1; empty where it is not called.
        parameters: with everything inside it. A shared tensor counts where it is met first.
        macs: with everything inside it, over all its calls.
        own_macs: those of its own forward, outside the modules in it. They sum up to the network's.
    """

    path: str
    depth: int
    type: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    own_macs: int


def breakdown(network: nn.Module, input: tuple[int, ...]) -> list[LayerCost]:
    """The cost of each module, in the order of the network's modules, each before what is in it.

    A module that is placed twice has one row, where it is met first, with the work of both.

    Args:
        input: the shape of one example, without the batch.

    Raises:
        UnsupportedRequest: as ``count``.
    """
    paths = {module: path for path, module in network.named_modules()}
    open_modules: list[str] = []
    work = dict.fromkeys(paths.values(), 0)
    outputs: dict[str, tuple[int, ...]] = {}
    tally = Tally()
    settled = 0

    def settle() -> None:
        """What was counted since the last time is the innermost open module's."""
        nonlocal settled
        if open_modules:
            work[open_modules[-1]] += tally.macs - settled
        settled = tally.macs

    def enter(module: nn.Module, args: Any) -> None:
        settle()
        open_modules.append(paths[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        settle()
        open_modules.pop()
        shapes = [tuple(tensor.shape) for tensor in tensors_in(output)]
        outputs.setdefault(paths[module], shapes[0] if shapes else ())

    def start() -> Tally:
        # A pass that cannot run on meta is begun again for real.
        nonlocal settled, tally
        open_modules.clear()
        outputs.clear()
        work.update(dict.fromkeys(work, 0))
        settled, tally = 0, Tally()
        return tally

    hooks = []
    modes = [(module, module.training) for module in paths]
    try:
        for module in paths:
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(module.register_forward_hook(leave))
        network.eval()
        trace(network, tuple(input), start)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return _rows(paths, work, outputs)


def _rows(
    paths: dict[nn.Module, str], work: dict[str, int], outputs: dict[str, tuple[int, ...]]
) -> list[LayerCost]:
    seen: set[int] = set()
    learnt = dict.fromkeys(work, 0)
    for module, path in paths.items():
        for tensor, is_parameter in kept_tensors(module):
            if is_parameter and id(tensor) not in seen:
                seen.add(id(tensor))
                learnt[path] += tensor.numel()
    macs, parameters = dict(work), dict(learnt)
    for path in reversed(paths.values()):
        if path:
            above = path.rpartition(".")[0]
            macs[above] += macs[path]
            parameters[above] += parameters[path]
    return [
        LayerCost(
            path=path,
            depth=path.count(".") + 1 if path else 0,
            type=_described(module),
            output=outputs.get(path, ()),
            parameters=parameters[path],
            macs=macs[path],
            own_macs=work[path],
        )
        for module, path in paths.items()
    ]


def _described(module: nn.Module) -> str:
    """The class, with what the module shows of itself, else with its plain arguments."""
    shown = module.extra_repr()
    if not shown:
        names = inspect.signature(type(module).__init__).parameters
        values = {name: vars(module).get(name) for name in names if name in vars(module)}
        plain = {name: value for name, value in values.items() if type(value) in _PLAIN}
        shown = ", ".join(f"{name}={value!r}" for name, value in plain.items())
    return f"{type(module).__name__}({shown})"
