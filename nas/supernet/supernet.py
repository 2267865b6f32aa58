"""A supernet: the weights that all architectures of a space share, and networks over them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

from nas.architecture import Architecture
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace, validate
from nas.supernet import kernels
from nas.supernet.assembly import Assembler
from nas.supernet.form import PLAIN, Form
from nas.supernet.gates import Gate, Gates
from nas.supernet.mixture import Current
from nas.supernet.pieces import Bound, Shared
from nas.supernet.relaxed import RelaxedBuilder, tensor_names
from nas.supernet.slicing import layouts_of
from nas.supernet.transforms import KernelTransforms, kernel_sizes

NETWORKS = 64
"""How many networks over its weights a supernet keeps, those last used."""


class Supernet(nn.Module):
    """The largest network of a space, and every other network as views into its tensors.

    The supernet owns the weights; what the gates are is the affair of who calls it. Three ways
    to use one set of weights:

    - ``supernet(x, gates)``: a mixture, or one path of it, with gradients to gates and weights;
    - ``supernet.network(arch)``: the stand-alone network of an architecture over views, so that
      what it learns is learnt by all;
    - ``supernet.extract(arch)``: the same network with weights of its own.

    Args:
        space: whose description is read.
        form: how its network is made, where a search wants it otherwise than it is. A path is
            then no longer what the stand-alone network computes; weights it has are inherited.
        kernel_transforms: whether a smaller kernel is made of a larger one's centre by matrices
            that are learnt too (``nas.supernet.transforms``), rather than being that centre.

    Attributes:
        slots: the options of every slot, by label, in the order of a gate's weights.
        depths, numbers: the options of every depth and number.
        names: by the name that a tensor of a stand-alone network has with its slots' options put in
            (``nas.builder.FixedBuilder.shared_names``), the name in the largest network.
        fast: whether ``supernet(x, gates)`` computes images, on a CPU and in training, as
            ``nas.supernet.kernels`` does: channels last, and what options have in common once.
            The same up to rounding; off at first.
    """

    _networks: OrderedDict[Architecture, Bound]
    _assembling: Assembler | None

    def __init__(
        self, space: SearchSpace, form: Form = PLAIN, kernel_transforms: bool = False
    ) -> None:
        super().__init__()
        self.space = space
        self.kernel_transforms = kernel_transforms
        self.fast = False
        self._current = Current()
        builder = RelaxedBuilder(space, self._current, form)
        self.largest = space.build(builder)
        if form.adapt is not None:
            form.adapt(self.largest)
        self.slots: Mapping[str, tuple[str, ...]] = dict(builder.slots)
        self.depths: Mapping[str, tuple[int, ...]] = dict(builder.depths)
        self.numbers: Mapping[str, tuple[int, ...]] = dict(builder.numbers)
        self._subsets = dict(builder.subsets)
        self.names = tensor_names(self.largest)
        self.transforms: KernelTransforms | None = None
        if kernel_transforms:
            self.transforms = KernelTransforms(kernel_sizes(space, form))
        self._misfits: dict[str, str] = {}
        self._check_mixture()
        # Not children: their parameters are the shared ones once more.
        self.__dict__["_networks"] = OrderedDict()
        self.__dict__["_assembling"] = None

    def forward(self, x: torch.Tensor, gates: Gates) -> torch.Tensor:
        """The mixture of all options under these gates.

        Args:
            x: (N, *input).
            gates: one for every slot and, where depths are open, for every depth.

        Raises:
            UnsupportedRequest: a gate is missing, or does not fit its slot.
        """
        with self.under(gates):
            if self.fast and self.training and kernels.suits(x):
                self._current.once = kernels.Once()
                x = x.contiguous(memory_format=torch.channels_last)
            return self.largest(x)

    @contextmanager
    def under(self, gates: Gates) -> Iterator[None]:
        """Within, the parts of the largest network run under these gates."""
        with self._current.under(gates, None):
            yield

    def gates(self, arch: Architecture) -> dict[str, Gate]:
        """The gates of one path: what an architecture picked.

        Raises:
            UnsupportedRequest: the architecture picks a number that is not the largest, or what
                does not fit beside the other options: a mixture cannot tell, ``network`` can.
        """
        validate(self.space, arch)
        self._check_subsets(arch)
        picks = arch.as_dict()
        for label, options in self.numbers.items():
            if label in picks and picks[label] != max(options):
                raise UnsupportedRequest(
                    f"{label!r} is {picks[label]}: the mixture has every number at its largest, "
                    f"{max(options)}; supernet.network(arch) has it as picked"
                )
        given: dict[str, Gate] = dict(self.space.slots(arch))
        for label in given:
            self._check_mixed(label)
        for label, depths in self.depths.items():
            if picks.get(label) != max(depths):
                self._check_mixed(label)
            # Where a depth is not open in this architecture, no block of it is in its network.
            given[label] = int(picks.get(label, min(depths)))
        # A slot that this architecture's network does not have lies in a block that is left out.
        for label, names in self.slots.items():
            given.setdefault(label, names[0])
        return given

    def open_gates(self) -> dict[str, tuple[str | int, ...]]:
        """What a mixture is over: the options of every slot, and of every depth that is open.

        Raises:
            UnsupportedRequest: a number is open, or options that do not fit beside each other:
                a mixture cannot be over these.
        """
        for label, options in self.numbers.items():
            if len(options) > 1:
                raise UnsupportedRequest(
                    f"{self.space.name!r}: {label!r} is a number, one of {options}; a mixture is "
                    "over slots and depths, so give that number one option, or search with a "
                    "strategy that samples"
                )
        open_depths = {label: depths for label, depths in self.depths.items() if len(depths) > 1}
        for label in (*self.slots, *open_depths):
            self._check_mixed(label)
        return {**self.slots, **open_depths}

    def network(self, arch: Architecture) -> nn.Module:
        """The stand-alone network of an architecture over the shared weights.

        Its parameters are the shared tensors, or views of them: what it learns is learnt by
        all, and an optimiser is given the supernet's parameters, not its. Its batch-norm
        statistics are its own, set to the shared ones by this call. The same architecture gives
        the same module as long as it is among those last used. Moving the supernet to another
        device leaves networks made before behind.
        """
        if arch in self._networks:
            self._networks.move_to_end(arch)
        else:
            self._networks[arch] = self._bound(arch)
            while len(self._networks) > NETWORKS:
                self._networks.popitem(last=False)
        kept = self._networks[arch]
        with torch.no_grad():
            for own, shared in kept.statistics:
                own.copy_(shared)
        return kept.network.train(self.training)

    def keep_statistics(self, arch: Architecture) -> None:
        """Makes the batch-norm statistics of ``network(arch)`` the shared ones.

        For a network that ``network`` gave and that is still kept: after a step of training.
        """
        with torch.no_grad():
            for own, shared in self._networks[arch].statistics:
                shared.copy_(own)

    def used_parts(self, archs: Iterable[Architecture]) -> dict[nn.Parameter, torch.Tensor]:
        """Masks of the parameters of which these architectures together use a part, not all."""
        masks: dict[nn.Parameter, torch.Tensor] = {}
        whole: set[nn.Parameter] = set()
        for arch in archs:
            if arch not in self._networks:
                self.network(arch)
            for piece in self._networks[arch].pieces:
                shared = piece.source
                assert isinstance(shared, nn.Parameter)
                if shared.shape == piece.shape:
                    whole.add(shared)
                    masks.pop(shared, None)
                elif shared not in whole:
                    if shared not in masks:
                        masks[shared] = torch.zeros_like(shared, dtype=torch.bool)
                    piece.used(masks[shared]).fill_(True)
        return masks

    def extract(self, arch: Architecture) -> nn.Module:
        """A stand-alone network with a copy of the shared weights: nothing ties it to them.

        Exactly what ``nas.space.network`` builds; batch-norm statistics are the shared ones
        (``recalibrate`` makes them the network's own).
        """
        return self._bound(arch).own_weights(self._assembler.shared).train(self.training)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self._networks.clear()  # views do not follow their tensors to another device
        self.__dict__["_assembling"] = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so

    def _check_mixture(self) -> None:
        """Finds out what does not fit beside each other, on meta tensors.

        Raises:
            UnsupportedRequest: options of slots do not, and no size is open, so that weights
                cannot be shared over anything.
        """
        deepest = {label: max(depths) for label, depths in self.depths.items()}
        reason = self._misfit(deepest)
        if reason is not None:
            self._misfits = dict.fromkeys(self.slots, reason)
            if all(
                len(options) == 1 for options in (*self.numbers.values(), *self.depths.values())
            ):
                raise UnsupportedRequest(
                    f"{self.space.name!r} has no supernet: its options do not fit beside each "
                    f"other in one network ({reason})"
                )
            return
        for label, depths in self.depths.items():
            if len(depths) > 1:
                reason = self._misfit({**deepest, label: min(depths)})
                if reason is not None:
                    self._misfits[label] = reason

    def _misfit(self, depths: Mapping[str, int]) -> str | None:
        """Why a mixture of all slots' options with these depths cannot run; ``None`` if it can."""
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for name, tensor in (
                *self.largest.named_parameters(),
                *self.largest.named_buffers(),
            )
        }
        gates: dict[str, Gate] = {
            label: torch.empty(len(options), device="meta") for label, options in self.slots.items()
        }
        x = torch.empty(1, *self.space.input, device="meta")
        training = self.largest.training
        try:
            with torch.no_grad(), self.under({**gates, **depths}):
                torch.func.functional_call(self.largest.eval(), tensors, (x,))
        except (RuntimeError, ValueError) as error:
            return str(error)
        finally:
            self.largest.train(training)
        return None

    def _check_mixed(self, label: str) -> None:
        if label in self._misfits:
            raise UnsupportedRequest(
                f"{self.space.name!r}: a mixture cannot be over {label!r}, whose options do not "
                f"fit beside each other ({self._misfits[label]}); supernet.network(arch) has it "
                "as picked"
            )

    def _check_subsets(self, arch: Architecture) -> None:
        """Refuses an architecture that joins other states than the largest network does.

        What reads a concatenation knows its channels by position: with a part missing, leading
        channels would be those of other states.
        """
        held = self.space.slots(arch)
        for label, of in self._subsets.items():
            if label in held and held[label] != "+".join(map(str, range(of))):
                raise UnsupportedRequest(
                    f"{self.space.name!r}: {label!r} joins {held[label] or 'nothing'} of {of} in "
                    f"{arch}; weights behind a concatenation are not shared over what is joined "
                    "(some spaces have a form that sums projections instead: projected=True)"
                )

    def _bound(self, arch: Architecture) -> Bound:
        """The stand-alone network over the shared tensors."""
        validate(self.space, arch)
        self._check_subsets(arch)
        return self._assembler(arch)

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The shared tensors by their names in the largest network."""
        return self._assembler.shared.tensors

    @property
    def _assembler(self) -> Assembler:
        if self._assembling is None:
            tensors: dict[str, torch.Tensor] = dict(self.largest.named_parameters())
            tensors |= dict(self.largest.named_buffers())
            shared = Shared(
                self.space.name, self.names, layouts_of(self.largest), tensors, self.transforms
            )
            self.__dict__["_assembling"] = Assembler(self.space, shared)
        return self._assembling  # type: ignore[return-value]  # made above
