"""The form of a network in search, where it differs from the plain mixture of all options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.builder import Factory
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace
from nas.supernet.mixture import Current, Mixed

Mixture = Callable[[str, Mapping[str, Factory | None], Current], nn.Module]
"""Makes the module of a slot, of its label, its options, and where its gate is found."""

Part = Callable[[nn.Module, Current], nn.Module]
"""Makes what stands for a part, of the part and of where its gates are found."""


@runtime_checkable
class HasSearchForm(Protocol):
    """A space whose authors search in another network than they train in the end."""

    def adapt(self, network: nn.Module) -> None:
        """Changes the network of all options in place: its slots are ``Mixed`` modules."""


def mixed(label: str, options: Mapping[str, Factory | None], current: Current) -> nn.Module:
    """A slot with all of its options, as they are."""
    modules = {name: None if factory is None else factory() for name, factory in options.items()}
    return Mixed(label, modules, current)


def as_it_is(part: nn.Module, current: Current) -> nn.Module:
    """A part of the description, as it is."""
    return part


@dataclass(frozen=True)
class Form:
    """How the network of a search is made.

    Attributes:
        mixture: makes each slot.
        adapt: changes the built network in place.
        part: makes what stands for a part of the description (``builder.part``).
    """

    mixture: Mixture = mixed
    adapt: Callable[[nn.Module], None] | None = None
    part: Part = as_it_is


PLAIN = Form()
"""Every option as it is: what a path computes is what its stand-alone network computes."""


def search_form(space: SearchSpace, mixture: Mixture = mixed) -> Form:
    """The form in which a space is searched by gradients: its own where it has one."""
    return Form(mixture, space.adapt if isinstance(space, HasSearchForm) else None)


def without_affine(network: nn.Module) -> None:
    """Takes scale and shift from every batch norm of a network.

    In a mixture they would rescale what the gates weigh.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.affine = False
            module.register_parameter("weight", None)
            module.register_parameter("bias", None)


def norm_behind(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Puts a batch norm without scale and shift behind every option of these kinds.

    Its channels are those of the slot's other options, of which one must say them (``c_out``).
    """
    for slot in [module for module in network.modules() if isinstance(module, Mixed)]:
        modules = {name: slot.option(name) for name in slot.options}
        found = [getattr(module, "c_out", None) for module in modules.values()]
        channels = next((int(c) for c in found if c is not None), None)
        if channels is None:
            raise UnsupportedRequest(
                f"slot {slot.label!r}: no option says its channels (c_out), so none of "
                f"{slot.options} can be given a norm"
            )
        for name, module in modules.items():
            if isinstance(module, kinds):
                slot.replace(name, nn.Sequential(module, nn.BatchNorm2d(channels, affine=False)))
