"""Networks over the shared weights, put together from parts that are known already.

A random architecture is most likely a new one, but its blocks are not: each was in some network
before. What was built of a part of the description (``builder.part``) is kept with its views of
the shared tensors, and copied: modules and buffers of a network are its own.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nas.architecture import Architecture
from nas.builder import Factory, FixedBuilder
from nas.errors import UnsupportedRequest
from nas.parts import About, Parts, named
from nas.space import SearchSpace
from nas.supernet.pieces import Bound, Piece, Shared
from nas.supernet.slicing import Layout, stated, torch_layouts

PARTS = 2_000
"""How many parts a supernet keeps: some tens of kilobytes each."""

Place = tuple[str, str]
"""What the names of a module's tensors begin with: its own, and those of the largest network."""


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of a network that was bound before.

    Attributes:
        module: is copied, and never run.
        options: the slots' options among its modules, by their places in ``module.modules()``.
        place: where it stood.
        pieces: its parameters that are shared.
        computed: those that are no views, by their module's place among the part's.
        statistics: its buffers, by their module's place and their name, and the shared ones.
    """

    module: nn.Module
    options: tuple[tuple[int, str], ...]
    place: Place
    pieces: tuple[Piece, ...]
    computed: tuple[tuple[int, Piece], ...]
    statistics: tuple[tuple[int, str, torch.Tensor], ...]


class Assembler:
    """Puts networks together.

    Args:
        space: whose networks.
        shared: the shared tensors.
    """

    def __init__(self, space: SearchSpace, shared: Shared) -> None:
        self.space = space
        self.shared = shared
        self._like = next(t for t in shared.tensors.values() if t.is_floating_point())
        self._parts: Parts[_Part] = Parts(PARTS)

    def __call__(self, arch: Architecture) -> Bound:
        """The network of a valid architecture, over views of the shared tensors.

        Raises:
            UnsupportedRequest: it has a tensor that is no part of a shared one.
        """
        builder = _Builder(self.space, arch, self._parts)
        with torch.random.fork_rng(devices=[]), _Undrawn():
            network = self.space.build(builder)
        binding = _Binding(self, arch, builder, Bound(network))
        with torch.enable_grad():
            binding.walk(network, "", "")
        if binding.missing:
            raise UnsupportedRequest(
                f"{self.space.name!r}: the network of {arch} has {min(binding.missing)!r}, which "
                "the largest network has not: its description depends on picks in a way that "
                "weights cannot be shared over"
            )
        if binding.bound.computed:
            with torch.enable_grad():
                binding.bound.compute()  # those of copies are of the weights of long ago
            network.register_forward_pre_hook(binding.bound.compute)
        return binding.bound


class _Binding:
    """The binding of one network, module by module."""

    def __init__(
        self, assembler: Assembler, arch: Architecture, builder: _Builder, bound: Bound
    ) -> None:
        self.assembler = assembler
        self.shared = assembler.shared
        self.arch = arch
        self.builder = builder
        self.bound = bound
        self.missing: set[str] = set()
        self.told: dict[str, Layout] = {}

    def walk(self, module: nn.Module, own: str, shared: str) -> None:
        """Binds a module and all in it.

        Args:
            own, shared: what its tensors' names begin with, in the network and in the largest.
        """
        option = self.builder.option(module)
        if option is not None:
            shared = f"{shared}{option}."
        copy = self.builder.copies.get(module)
        if copy is not None and copy[0].place == (own, shared) and not self._told_of(own):
            self._bound_before(*copy)
            return
        fresh = self.builder.fresh.get(module)
        counts = len(self.bound.pieces), len(self.bound.computed), len(self.bound.statistics)
        for name, layout in stated(module).items():
            self.told.setdefault(own + name, layout)  # the outer layer, met first, knows more
        self._bind(module, own, shared)
        for name, child in module._modules.items():
            if child is not None:
                self.walk(child, f"{own}{name}.", f"{shared}{name}.")
        if fresh is not None and not self.missing and not self._told_of(own):
            part = self._kept(module, (own, shared), counts)
            if part is not None:
                self.assembler._parts.keep(*fresh, part)

    def _told_of(self, own: str) -> bool:
        """Whether a layer around it says something of its tensors."""
        return any(name.startswith(own) for name in self.told)

    def _bound_before(self, part: _Part, modules: list[nn.Module]) -> None:
        bound = self.bound
        bound.pieces.extend(part.pieces)
        bound.computed.extend(
            replace(piece, module=modules[place]) for place, piece in part.computed
        )
        for place, key, tensor in part.statistics:
            bound.statistics.append((modules[place]._buffers[key], tensor))  # type: ignore[arg-type]  # it is there

    def _bind(self, module: nn.Module, own: str, shared: str) -> None:
        """The tensors that a module holds itself."""
        layouts: dict[str, Layout] | None = None
        for holder in (module._parameters, module._buffers):
            for key, tensor in holder.items():
                if tensor is None or key in module._non_persistent_buffers_set:
                    self._place(holder, key, tensor)
                    continue
                name = self.shared.names.get(shared + key)
                if name is None:
                    if not self._left_out(shared, key):
                        self.missing.add(shared + key)
                    self._place(holder, key, tensor)
                    continue
                if layouts is None:
                    layouts = torch_layouts(module)
                small = self.told.get(own + key, layouts.get(key))
                piece = Piece(self.shared, module, key, name, small, tensor.shape)
                if holder is module._buffers:
                    self._place(holder, key, tensor)
                    self.bound.statistics.append((holder[key], piece.tensor()))  # type: ignore[arg-type]  # it is there
                    continue
                view = piece.tensor()
                # A view is no leaf, so it cannot be a Parameter; layers do not ask.
                holder[key] = view  # type: ignore[assignment]  # as said
                self.bound.pieces.append(piece)
                if view.untyped_storage().data_ptr() != piece.source.untyped_storage().data_ptr():
                    self.bound.computed.append(piece)

    def _place(self, holder: dict[str, Any], key: str, tensor: torch.Tensor | None) -> None:
        """Puts a tensor of the network's own where the shared ones are."""
        like = self.assembler._like
        if tensor is None:
            return
        moved = tensor.detach().to(like.device, like.dtype if tensor.is_floating_point() else None)
        holder[key] = nn.Parameter(moved) if isinstance(tensor, nn.Parameter) else moved

    def _left_out(self, shared: str, key: str) -> bool:
        """Whether this is scale or shift of a norm that is among the shared ones, with neither."""
        return key in ("weight", "bias") and f"{shared}running_mean" in self.shared.names

    def _kept(self, module: nn.Module, place: Place, counts: tuple[int, int, int]) -> _Part | None:
        """A copy of a part that was bound just now; ``None`` where it cannot be copied."""
        made = copied(module)
        if made is None:
            return None
        places = {id(of): index for index, of in enumerate(module.modules())}
        order = list(module.modules())
        places = {id(of): index for index, of in enumerate(order)}
        options = [(index, self.builder.option(of)) for index, of in enumerate(order)]
        buffers = {
            id(buffer): (index, key)
            for index, of in enumerate(order)
            for key, buffer in of._buffers.items()
        }
        pieces, computed, statistics = counts
        copies = {id(of): copy for of, copy in zip(order, made, strict=True)}
        of_copy = {
            id(p): replace(p, module=copies[id(p.module)]) for p in self.bound.pieces[pieces:]
        }
        return _Part(
            made[0],
            tuple((index, option) for index, option in options if option is not None),
            place,
            tuple(of_copy.values()),
            tuple((places[id(p.module)], of_copy[id(p)]) for p in self.bound.computed[computed:]),
            tuple(
                (*buffers[id(own)], of_all) for own, of_all in self.bound.statistics[statistics:]
            ),
        )


class _Builder:
    """Answers with what an architecture picked, and with copies of parts that are known.

    Attributes:
        copies: of parts, with the part that each is of and its modules.
        fresh: parts that were described, with what they are known by.
    """

    def __init__(self, space: SearchSpace, arch: Architecture, parts: Parts[_Part]) -> None:
        self.copies: dict[nn.Module, tuple[_Part, list[nn.Module]]] = {}
        self.fresh: dict[nn.Module, tuple[Any, list[tuple[About, Any]]]] = {}
        self._fixed = FixedBuilder(space, arch)
        self._parts = parts
        self._answers = {"slot": space.slots(arch), "pick": arch.as_dict()}
        self._asked: list[tuple[About, Any]] = []
        self._met: Counter[Any] = Counter()

    def option(self, module: nn.Module) -> str | None:
        """The option that a module is, where it is a slot's."""
        return self._fixed.placed.get(module)

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        self._ask("slot", label)
        return self._fixed.slot(label, options)

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module | None:
        self._ask("slot", label)
        return self._fixed.edge(label, options)

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        self._ask("pick", label)
        return self._fixed.number(label, options)

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        self._ask("pick", label)
        return self._fixed.depth(label, block, options)

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        self._ask("slot", label)
        return self._fixed.subset(label, of)

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        name = named(describe, args, {})
        if name is None:
            return describe(self, *args)
        # The same part may stand in several places, each with views of its own.
        self._met[name] += 1
        key = (name, self._met[name])
        known, asked = self._parts.find(key, self._answers)
        if known is None:
            first = len(self._asked)
            module = describe(self, *args)
            self.fresh[module] = (key, self._asked[first:])
            return module
        modules = copied(known.module)
        self._asked.extend(asked)
        self.copies[modules[0]] = (known, modules)
        for place, option in known.options:
            self._fixed.placed[modules[place]] = option
        return modules[0]

    def _ask(self, kind: str, label: str) -> None:
        self._asked.append(((kind, label), self._answers[kind].get(label)))


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of initial weights, which the shared ones take the place of."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs.get("tensor")
            if type(tensor) is nn.Parameter:
                return tensor
        return func(*args, **kwargs)


_DRAWS = {torch.Tensor.uniform_, torch.Tensor.normal_} | {
    getattr(nn.init, f"{name}_")
    for name in (
        *("uniform", "normal", "trunc_normal", "orthogonal"),
        *("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"),
    )
}


# ---------------------------------------------------------------------------------- copies

_PLAIN = (int, float, bool, str, bytes, type(None), torch.Size, torch.dtype, type, FunctionType)
_COPIED = {dict, OrderedDict, set, list}
_REGISTERS = {"_parameters", "_buffers", "_modules"}


def can_be_copied(module: nn.Module) -> bool:
    """Whether all that it and its modules hold, outside of the registers, is plain values."""
    return all(
        name in _REGISTERS or _plain(value)
        for part in module.modules()
        for name, value in part.__dict__.items()
    )


def _plain(value: Any) -> bool:
    if type(value) in (dict, OrderedDict):
        return all(isinstance(part, _PLAIN) for part in (*value, *value.values()))
    if type(value) in (tuple, set, list):
        return all(isinstance(part, _PLAIN) for part in value)
    return isinstance(value, _PLAIN)


def copied(module: nn.Module) -> list[nn.Module]:
    """A copy of a module that can be copied and of all in it, in the order of ``modules()``.

    The parameters are the same tensors, the buffers copies.
    """
    made: dict[int, nn.Module] = {}
    _copy(module, made)
    return list(made.values())


def _copy(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    known = made.get(id(module))
    if known is not None:
        return known
    copy = made[id(module)] = module.__class__.__new__(module.__class__)
    held = copy.__dict__
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in _COPIED:  # most are empty: hooks that nobody set
            value = value.copy() if value else kind()
        held[name] = value
    for name, buffer in module._buffers.items():
        if buffer is not None:
            held["_buffers"][name] = buffer.clone()
    for name, child in module._modules.items():
        if child is not None:
            held["_modules"][name] = _copy(child, made)
    return copy
