"""Surrogates on disk: one ``.npz`` without pickle.

The file holds ``format`` (``"nasforge-surrogate/1"``), ``about`` (a JSON object: the space, the
metric, the model and its settings, how it was validated), arrays of what was fitted and of the
model (trees as nodes, networks as weights), and ``checksum``: BLAKE2b over all the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nas.components import create, describe
from nas.errors import ConfigError, DataError
from nas.history import write_file
from nas.objective import Metric
from nas.predictor.models import restored, settings_of
from nas.predictor.protocol import Prediction
from nas.predictor.surrogate import FittedSurrogate
from nas.predictor.validation import Agreement, CrossValidation, Scaling
from nas.space import SearchSpace
from nas.tables.files import checksum

FORMAT = "nasforge-surrogate/1"
_KIND = FORMAT.partition("/")[0]

Arrays = Mapping[str, NDArray[Any]]


def space_digest(space: SearchSpace) -> str:
    """BLAKE2b, 16 bytes in hex, of the space's name and choices: what an encoding depends on."""
    choices = [
        [choice.label, list(choice.options), [list(map(_plain, c)) for c in choice.conditions()]]
        for choice in space.choices
    ]
    text = json.dumps([space.name, choices], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def save_surrogate(surrogate: FittedSurrogate, path: str | Path) -> int:
    """Writes a surrogate, whole or not at all; returns the size of the file in bytes.

    Raises:
        JournalError: the disk does not take it.
    """
    metric, scaling = surrogate.metric, surrogate.validation.scaling
    about = {
        "space": describe(surrogate.space),
        "space_name": surrogate.space.name,
        "space_digest": space_digest(surrogate.space),
        "metric": [metric.name, metric.unit, metric.direction],
        "model": surrogate.name,
        "targets": surrogate.targets,
        "settings": settings_of(surrogate.name, surrogate.inputs, surrogate.model),
        "source": surrogate.source,
        "reach": surrogate.reach,
        "folds": surrogate.folds,
        "seed": surrogate.seed,
        "scaling": [scaling.factor, scaling.noise],
        "agreement": surrogate.validation.agreement.to_document(),
    }
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "about": np.array(json.dumps(about, ensure_ascii=False)),
        "positions": surrogate.positions,
        "values": surrogate.values,
        "out_of_fold/mean": surrogate.validation.said.mean,
        "out_of_fold/std": surrogate.validation.said.std,
    }
    arrays |= {f"inputs/{name}": array for name, array in surrogate.inputs.state_dict().items()}
    arrays |= {f"model/{name}": array for name, array in surrogate.model.state_dict().items()}
    arrays["checksum"] = np.array(checksum(arrays))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy types the flags with the arrays
    write_file(Path(path), buffer.getvalue())
    return buffer.tell()


def load_surrogate(path: str | Path, space: SearchSpace | None = None) -> FittedSurrogate:
    """Reads a surrogate; what it predicts is equal to the bit to what it did when it was saved.

    Args:
        space: the space it must be of; without it, the space that the file describes is made.

    Raises:
        ConfigError: there is no such file, it is of another space, or that space lives in a
            script and has to be given.
        DataError: the file is damaged, no surrogate, or of another version of the format.
    """
    path = Path(path)
    arrays = _arrays(path)
    try:
        about = json.loads(str(arrays["about"]))
        name, model = str(about["space_name"]), str(about["model"])
        if space is None:
            space = create("spaces", about["space"], f"{path}: space")
        _check_space(path, about, name, space)
        inputs, fitted = restored(
            model, space, about["settings"], _part(arrays, "inputs"), _part(arrays, "model")
        )
        agreement = Agreement(**about["agreement"])
        said = Prediction(arrays["out_of_fold/mean"], arrays["out_of_fold/std"])
        return FittedSurrogate(
            space,
            Metric(*about["metric"]),
            model,
            str(about["targets"]),
            str(about["source"]),
            inputs,
            fitted,
            CrossValidation(said, Scaling(*about["scaling"]), agreement),
            arrays["positions"],
            arrays["values"],
            int(about["reach"]),
            int(about["folds"]),
            int(about["seed"]),
        )
    except ConfigError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not what {FORMAT} holds: {error!r:.300}") from error


def _arrays(path: Path) -> Arrays:
    if not path.is_file():
        raise ConfigError(
            f"there is no surrogate {str(path)!r}; 'nas surrogate fit RUN|TABLE --out FILE' makes "
            "one"
        )
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise DataError(f"{path} is a single array, expected an .npz file of several")
            arrays = {name: found[name] for name in found.files}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no readable surrogate: {error}") from error
    kind = str(arrays.get("format", "without a format"))
    if kind != FORMAT:
        what = "another version" if kind.startswith(_KIND) else "no surrogate"
        raise DataError(f"{path} is {what}: its format is {kind!r}, expected {FORMAT!r}")
    if str(arrays.get("checksum")) != checksum(arrays):
        raise DataError(f"{path} is damaged: its arrays do not give the checksum it holds")
    return arrays


def _part(arrays: Arrays, name: str) -> dict[str, NDArray[Any]]:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): array for k, array in arrays.items() if k.startswith(prefix)}


def _check_space(path: Path, about: Mapping[str, Any], name: str, space: SearchSpace) -> None:
    if space.name != name:
        raise ConfigError(f"{path} is a surrogate for {name!r}, not for {space.name!r}")
    if about["space_digest"] != space_digest(space):
        raise ConfigError(
            f"{path} is a surrogate for a {name!r} of other choices or options than this one"
        )
    described = json.loads(json.dumps(describe(space)))
    if described != about["space"]:
        keys = {*described, *about["space"]}
        differing = sorted(key for key in keys if described.get(key) != about["space"].get(key))
        shown = ", ".join(
            f"{key} {about['space'].get(key)!r} (here {described.get(key)!r})" for key in differing
        )
        raise ConfigError(
            f"{path} is a surrogate for {name!r} with {shown}: other networks, so their "
            f"{about['metric'][0]} is another"
        )
