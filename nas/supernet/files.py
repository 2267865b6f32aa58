"""A trained supernet as a file that can be shared.

Safetensors. A tensor is called ``KIND/NAME``: ``supernet/NAME`` are the shared weights (the
``state_dict`` of the ``Supernet``), and other kinds, an optimiser's momentum for one, are there
only as long as a training may go on from the file (``nas.supernet.checkpoint``). The metadata's
``supernet`` is a JSON object:

    format              ``"nasforge-supernet/1"``
    space               ``description`` (``nas.components.describe``), ``name`` with its version,
                        ``input``, ``classes``, and ``choices``, a digest of all options
    kernel_transforms   whether the supernet has them
    facts               what it was trained on and how, and for how many ``seconds``
    training            where a training was left; null where none is told
    digests             BLAKE2b of the tensors of each kind

and ``checksum`` is BLAKE2b of that text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nas.components import OPAQUE, create, describe
from nas.errors import ConfigError, DataError, NasError, nearest
from nas.history import write_file
from nas.predictor.files import space_digest
from nas.shared import Shared, own
from nas.space import SearchSpace
from nas.supernet.supernet import Supernet

FORMAT = "nasforge-supernet/1"
WEIGHTS = "supernet"
"""The kind of the shared weights."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds, checked as far as it can be without its space.

    Attributes:
        document: the metadata; see the module.
        tensors: by kind, then by name.
    """

    document: Mapping[str, Any]
    tensors: Mapping[str, Tensors]

    @property
    def digest(self) -> str:
        """Of the shared weights: equal for equal weights, whatever else the files hold."""
        return str(self.document["digests"][WEIGHTS])


@dataclass(frozen=True, eq=False)
class SharedSupernet:
    """A trained supernet and what is known of it.

    Attributes:
        supernet: in eval mode, on the CPU; not to be written into where it was unpickled.
        space: its own.
        facts: what it was trained on and how, as JSON: ``data``, ``preprocessing``, ``sampling``,
            ``settings``, ``seed``, ``validation_fraction``, ``seconds``, as far as they are known.
        digest: of its weights; 16 bytes of BLAKE2b, in hex.
    """

    supernet: Supernet
    space: SearchSpace
    facts: Mapping[str, Any]
    digest: str

    def __getstate__(self) -> dict[str, Any]:
        weights = {n: Shared(t.cpu()) for n, t in self.supernet.state_dict().items()}
        transforms = self.supernet.kernel_transforms
        return {**self.__dict__, "supernet": (transforms, weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        transforms, weights = state["supernet"]
        with torch.random.fork_rng(devices=[]):
            supernet = Supernet(state["space"], kernel_transforms=transforms)
        # Over the memory that they came in, which others may read as well.
        supernet.load_state_dict({n: own(tensor) for n, tensor in weights.items()}, assign=True)
        self.__dict__.update(state | {"supernet": supernet.eval()})


def save_supernet(path: str | Path, supernet: Supernet, facts: Mapping[str, Any]) -> int:
    """Writes a supernet, whole or not at all; returns the size of the file in bytes.

    Args:
        facts: what a user of it wants to know, as JSON values or components: see
            ``SharedSupernet``.

    Raises:
        JournalError: the disk does not take it.
    """
    document = {**about(supernet), "facts": describe(facts), "training": None}
    tensors = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    return write(path, document, {WEIGHTS: tensors})


def share(path: str | Path, target: str | Path | None = None) -> int:
    """Writes the checkpoint of a training that is done without what only training needs.

    Args:
        target: where to; in its own place if not given.

    Returns:
        The size of the file in bytes.

    Raises:
        DataError: the file is damaged, no supernet, or its training is not done.
    """
    stored = read(path)
    check_done(path, stored)
    return write(target or path, stored.document, {WEIGHTS: stored.tensors[WEIGHTS]})


def load_supernet(path: str | Path, space: SearchSpace | None = None) -> SharedSupernet:
    """Reads a supernet: one that was saved or shared, or the checkpoint that a run left.

    Args:
        space: the space it must be of; without it, the space that the file describes is made.

    Raises:
        ConfigError: there is no such file; it is of another space, or of another version of it;
            or the space lives in a script and has to be given.
        DataError: the file is damaged, no supernet, of another version of the format, or left by
            a training that is not done.
        UnsupportedRequest: the space's weights cannot be shared any more.
    """
    stored = read(path)
    check_done(path, stored)
    found = _space(path, stored.document["space"], space)
    with torch.random.fork_rng(devices=[]):
        supernet = Supernet(found, kernel_transforms=bool(stored.document["kernel_transforms"]))
    _check_tensors(path, stored.tensors[WEIGHTS], supernet.state_dict())
    supernet.load_state_dict(stored.tensors[WEIGHTS])
    return SharedSupernet(supernet.eval(), found, stored.document["facts"], stored.digest)


# ---------------------------------------------------------------------------------- the format


def about(supernet: Supernet) -> dict[str, Any]:
    """What a file says of the supernet itself."""
    space = supernet.space
    return {
        "format": FORMAT,
        "space": {
            "description": describe(space),
            "name": space.name,
            "input": list(space.input),
            "classes": space.classes,
            "choices": space_digest(space),
        },
        "kernel_transforms": supernet.kernel_transforms,
    }


def write(path: str | Path, document: Mapping[str, Any], tensors: Mapping[str, Tensors]) -> int:
    """Writes a file of this format; returns its size in bytes.

    Args:
        document: the metadata but for ``digests``, as JSON.
        tensors: by kind, then by name.

    Raises:
        JournalError: the disk does not take it.
    """
    kept = {
        kind: {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
        for kind, named in tensors.items()
    }
    digests = {kind: _digest(named) for kind, named in kept.items()}
    text = json.dumps({**document, "digests": digests}, ensure_ascii=False)
    flat = {f"{kind}/{name}": t for kind, named in kept.items() for name, t in named.items()}
    content = save(flat, {"supernet": text, "checksum": _hash(text.encode())})
    write_file(Path(path), content)
    return len(content)


def read(path: str | Path) -> Stored:
    """Reads a file of this format.

    Raises:
        ConfigError: there is no such file.
        DataError: it is damaged, no supernet, or of another version of the format.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"there is no supernet {str(path)!r}; 'nas supernet train CONFIG.yaml --out DIR' "
            "makes one"
        )
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118  # it is no mapping
                kind, _, name = key.partition("/")
                tensors.setdefault(kind, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no file of a supernet, or is damaged: {error}") from error
    if "supernet" not in metadata:
        raise DataError(
            f"{path} is no file of a supernet in the format {FORMAT!r}: its metadata has "
            f"{', '.join(metadata) or 'nothing'}"
        )
    text = metadata["supernet"]
    if metadata.get("checksum") != _hash(text.encode()):
        raise DataError(f"{path} is damaged: its metadata do not give the checksum it holds")
    document = json.loads(text)
    if document.get("format") != FORMAT:
        raise DataError(
            f"{path} is a supernet of another version: its format is {document.get('format')!r}, "
            f"expected {FORMAT!r}"
        )
    for kind, digest in document["digests"].items():
        if _digest(tensors.get(kind, {})) != digest:
            raise DataError(
                f"{path} is damaged: its tensors {kind}/… do not give the digest it holds"
            )
    return Stored(document, tensors)


def check_done(path: str | Path, stored: Stored) -> None:
    """Raises ``DataError`` where a training left the file before its end."""
    training = stored.document["training"]
    if training is not None and not training["done"]:
        raise DataError(
            f"{path} was left by a training that is not done: epoch {training['epoch']} of "
            f"{training['epochs']}. Start it again, and it goes on from there"
        )


def _digest(tensors: Tensors) -> str:
    """BLAKE2b over names, types, shapes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


# ----------------------------------------------------------------------------- what is checked


def _space(path: str | Path, told: Mapping[str, Any], given: SearchSpace | None) -> SearchSpace:
    """The space of the file: the one given where it is the same, else made of its description."""
    description = told["description"]
    if given is None:
        if isinstance(description, Mapping) and OPAQUE in description:
            raise ConfigError(
                f"{path}: its space {told['name']!r} lives in a Python script, so it cannot be "
                "made from the file: give it, load_supernet(path, space)"
            )
        try:
            given = create("spaces", description, "space")
        except NasError as error:
            raise ConfigError(f"{path}: its space cannot be made again: {error}") from error
    name = f"{path} is a supernet of {told['name']!r}"
    if given.name != told["name"]:
        raise ConfigError(f"{name}, not of {given.name!r}")
    for key, here in (("input", list(given.input)), ("classes", given.classes)):
        if told[key] != here:
            raise ConfigError(f"{name} with {key} {told[key]}, here it is {here}")
    if told["choices"] != space_digest(given):
        raise ConfigError(f"{name} with other choices or options than it has here")
    here = json.loads(json.dumps(describe(given)))
    for key in dict.fromkeys([*description, *here]):
        if description.get(key) != here.get(key):
            raise ConfigError(
                f"{name} with {key} {description.get(key)!r}, here it is {here.get(key)!r}"
            )
    return given


def _check_tensors(path: str | Path, found: Tensors, expected: Tensors) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise DataError(f"{path} lacks the tensor {name!r}: {nearest(name, found)}")
        if found[name].shape != tensor.shape:
            raise DataError(
                f"{path}: {name!r} has the shape {tuple(found[name].shape)}, that of the space "
                f"is {tuple(tensor.shape)}"
            )
    for name in found:
        if name not in expected:
            raise DataError(f"{path} has a tensor {name!r} that the space's supernet has not")
