"""Which part of which shared tensor each tensor of a sub-network is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from nas.supernet.slicing import Layout, part
from nas.supernet.transforms import KernelTransforms


@dataclass(frozen=True)
class Shared:
    """The shared tensors.

    Attributes:
        space: of what, for messages.
        names: by the name that a stand-alone network's tensor has once its options are put in
            (``nas.builder.FixedBuilder.shared_names``), the name in the largest network.
        layouts: by the latter.
        tensors: by the latter.
        transforms: of kernels, where there are any.
    """

    space: str
    names: Mapping[str, str]
    layouts: Mapping[str, Layout]
    tensors: Mapping[str, torch.Tensor]
    transforms: KernelTransforms | None


@dataclass(frozen=True, eq=False)
class Piece:
    """Where a tensor of a network is from.

    Attributes:
        shared: all shared tensors.
        module, key: whose it is, and its name there.
        name: of the shared tensor, in the largest network.
        small: its layout in the network.
        shape: of the network's.
    """

    shared: Shared
    module: nn.Module
    key: str
    name: str
    small: Layout | None
    shape: torch.Size

    @property
    def source(self) -> torch.Tensor:
        """The shared tensor."""
        return self.shared.tensors[self.name]

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a tensor like the shared one that the network has, as a view.

        Raises:
            UnsupportedRequest: it is no part of it.
        """
        large = self.shared.layouts.get(self.name)
        where = f"{self.shared.space}: {self.name}"
        return part(tensor, large, self.small, self.shape, where)

    def tensor(self) -> torch.Tensor:
        """The network's tensor: the shared one, a view of it, or computed from it."""
        source, transforms = self.source, self.shared.transforms
        if transforms is not None and (wide := self._of_kernel(tuple(source.shape[2:]))):
            weight = wide.part(source).reshape(wide.shape)
            made: torch.Tensor = transforms(self.name, weight, tuple(self.shape[2:]))
            return made
        view = self.part(source)
        return view if view is source else view.reshape(self.shape)

    def used(self, mask: torch.Tensor) -> torch.Tensor:
        """The part of a tensor like the shared one that has a say in the network's."""
        if self.shared.transforms is not None:
            _, *smaller = self.shared.transforms.sizes.get(self.name, ((),))
            if smaller and (wide := self._of_kernel(smaller[0])):
                return wide.part(mask)
        return self.part(mask)

    def _of_kernel(self, kernel: tuple[int, ...]) -> Piece | None:
        """The same channels with another kernel, where this one's is made by a transform."""
        assert self.shared.transforms is not None
        if tuple(self.shape[2:]) not in self.shared.transforms.sizes.get(self.name, ())[1:]:
            return None
        assert self.small is not None
        centred = tuple(range(1 - size, size, 2) for size in kernel)
        return replace(
            self,
            small=(*self.small[:2], *centred),
            shape=torch.Size((*self.shape[:2], *kernel)),
        )


@dataclass(frozen=True, eq=False)
class Bound:
    """A network over the shared weights.

    Attributes:
        pieces: its parameters that are shared.
        computed: those of them that are no views, and are computed before every forward pass.
        statistics: its own buffers, and the shared ones.
    """

    network: nn.Module
    pieces: list[Piece] = field(default_factory=list)
    computed: list[Piece] = field(default_factory=list)
    statistics: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def compute(self, *_: object) -> None:
        """Computes what is no view; before a forward pass, as its hook."""
        for piece in self.computed:
            piece.module._parameters[piece.key] = piece.tensor()  # type: ignore[assignment]  # no leaf

    def own_weights(self, shared: Shared) -> nn.Module:
        """The network with copies of its weights as parameters: nothing ties it to the others."""
        network = self.network
        network._forward_pre_hooks.clear()
        with torch.no_grad():
            self.compute()
        others = {id(tensor) for tensor in shared.tensors.values()}
        for module in network.modules():
            for key, tensor in module._parameters.items():
                if tensor is not None and not (
                    isinstance(tensor, nn.Parameter) and id(tensor) not in others
                ):
                    module._parameters[key] = nn.Parameter(tensor.detach().clone())
        with torch.no_grad():
            for own, of_all in self.statistics:
                own.copy_(of_all)
        return network
