"""Data-parallel training: several processes make every step together, each on its rows of a batch.

Every rank draws the same architectures (or gates) and the same order of examples. Gradients are
summed over the ranks before they are clipped and used, so that they are those of the mean over the
whole batch and all ranks make the same update. Batch norms see a rank's own rows, as under Horovod
in the authors' code.

Who started the processes does not matter here: ``nas.supernet.workers`` on one machine, torchrun or
Ray Train on several; ``torch.distributed`` has to be initialised, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed, nn

from nas.errors import ConfigError, WorkerError
from nas.training import reproducible


class Group(Protocol):
    """Processes that train together.

    Attributes:
        rank: which of them this is.
        size: how many.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def sum(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each tensor's sum over all ranks, the same to the bit on all of them.

        Args:
            tensors: of one type, on one device, with the same shapes on every rank.
        """


class _Alone:
    rank = 0
    size = 1

    def sum(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(tensors)


ALONE: Group = _Alone()
"""One process, which waits for nobody."""


class LostRank(WorkerError):
    """Another rank no longer answers; what it died of, it alone knows."""


class Distributed:
    """The processes of ``torch.distributed``'s default group.

    Raises:
        ConfigError: it is not initialised.
    """

    def __init__(self) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ConfigError(
                "torch.distributed is not initialised: call init_process_group first, or train "
                "with workers=N, which starts the processes too"
            )
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def sum(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        # One buffer: a message for each tensor would cost more than what is in it.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        try:
            distributed.all_reduce(flat)
        except RuntimeError as error:
            raise LostRank(f"rank {self.rank} of {self.size} lost another: {error}") from error
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [piece.view(t.shape) for piece, t in zip(pieces, tensors, strict=True)]


# ---------------------------------------------------------------------------- shares of a batch


def check_shares(examples: int, batch_size: int, size: int) -> None:
    """Refuses more workers than a batch has rows for: each needs two, as batch norms do.

    Raises:
        ConfigError: there are, or there is less than one worker.
    """
    if size < 1:
        raise ConfigError(f"workers must be at least 1, got {size}")
    steps = -(-examples // batch_size)
    if size > 1 and examples // steps < 2 * size:
        raise ConfigError(
            f"workers must be at most {max(1, examples // steps // 2)}, got {size}: batches of "
            f"{batch_size} from {examples} examples leave less than 2 for each"
        )


def share(group: Group, rows: int) -> slice:
    """A rank's rows of a batch; ranks' numbers of rows differ by one at most."""
    return slice(rows * group.rank // group.size, rows * (group.rank + 1) // group.size)


def own_randomness(
    group: Group, seeds: Sequence[int], threads: int
) -> AbstractContextManager[None]:
    """Within, each of several ranks draws its own numbers (dropout); afterwards all go on alike."""
    if group.size == 1:
        return contextlib.nullcontext()
    seed = int(np.random.SeedSequence([*seeds, group.rank]).generate_state(1)[0])
    return reproducible(seed, threads)


# ------------------------------------------------------------------------------- over all ranks


def sum_gradients(group: Group, parameters: Iterable[nn.Parameter], loss: float) -> float:
    """Makes every gradient its sum over all ranks; gives the sum of the losses.

    A parameter without a gradient on any rank stays without.
    """
    if group.size == 1:
        return loss
    parameters = list(parameters)
    device = parameters[0].device
    told = [loss, *(float(parameter.grad is not None) for parameter in parameters)]
    (sums,) = group.sum([torch.tensor(told, dtype=torch.float64, device=device)])
    total, *ranks = sums.tolist()
    used = [p for p, count in zip(parameters, ranks, strict=True) if count]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    # Pieces of one buffer, in the same order in memory on every rank, whatever a layer's backward
    # pass has made for its number of rows: what is computed from them is then the same to the bit.
    for parameter, gradient in zip(used, group.sum(gradients), strict=True):
        parameter.grad = gradient
    return total


class _WholeLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.size = group.size
        return group.sum([loss])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.size, None


def whole_loss(group: Group, loss: torch.Tensor, part: float) -> torch.Tensor:
    """A loss over the rows of all ranks, from the mean over this rank's; the same on all of them.

    Whatever is then made of it and of parameters that all ranks share (a penalty is added, a
    latency multiplied), the mean over the ranks of a parameter's gradients is the gradient over
    all rows: what depends on the rows counts once, and so does what does not.

    Args:
        loss: a scalar.
        part: how much of all rows are this rank's.
    """
    if group.size == 1:
        return loss
    whole: torch.Tensor = _WholeLoss.apply(loss * part, group)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return whole


def mean_gradients(group: Group, parameters: Iterable[nn.Parameter]) -> None:
    """Makes every gradient its mean over all ranks; one that no rank has stays away."""
    if group.size == 1:
        return
    parameters = list(parameters)
    sum_gradients(group, parameters, 0.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(group.size)


def mean(group: Group, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each tensor's mean over all ranks."""
    if group.size == 1:
        return list(tensors)
    return [total / group.size for total in group.sum(tensors)]


@torch.no_grad()
def average_statistics(group: Group, modules: Iterable[nn.Module]) -> None:
    """Makes running statistics, and whatever else is no parameter, their mean over all ranks."""
    if group.size == 1:
        return
    buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
    if buffers:
        # In double precision the mean of equal numbers is that number: constants stay as they are.
        for buffer, total in zip(buffers, group.sum([b.double() for b in buffers]), strict=True):
            buffer.copy_(total / group.size)


def check_same(group: Group, state: Mapping[str, Any], device: torch.device, what: str) -> None:
    """Compares a state over all ranks, by its digest.

    Args:
        state: tensors, mappings of them, and what ``repr`` tells apart.
        device: where the group's tensors lie.
        what: names it in the message.

    Raises:
        WorkerError: it differs; the message names the first rank whose differs from rank 0's. On
            every rank.
    """
    if group.size == 1:
        return
    digest = hashlib.blake2b(digest_size=7)  # an int64 holds it
    for content in _contents(state):
        digest.update(content)
    told = torch.zeros(group.size, dtype=torch.int64, device=device)
    told[group.rank] = int.from_bytes(digest.digest(), "big")
    digests = group.sum([told])[0].tolist()
    for rank, other in enumerate(digests):
        if other != digests[0]:
            raise WorkerError(
                f"{what} of rank {rank} are not those of rank 0: workers that train together need "
                "the same data, space, settings, kind of processor and version of torch"
            )


def _contents(state: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    for name, value in state.items():
        yield f"{name};".encode()
        if isinstance(value, Mapping):
            yield from _contents(value)
        elif torch.is_tensor(value):
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        else:
            yield repr(value).encode()
