"""The code a search needs, as one archive for workers that do not have it.

What is installed (the standard library, site-packages) is taken to be installed on the workers
as well. All else is packed: the packages that register components with ``nasforge`` and are
installed from their source folder, every module imported so far, and the modules that lie in the
folder of the script, or the working folder where that is searched for modules. Of packages every
file goes along, but for hidden ones and compiled Python; what lies beside modules (data, results)
does not. The same code gives the same bytes, so that Ray sends and unpacks it once.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from nas.errors import ConfigError

MOST_BYTES = 64 * 2**20
"""The most that is sent: a source tree is far smaller, a data set that strayed into it larger."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_bundle(file: Path) -> None:
    """Packs the code into a zip archive, at whose root the modules are.

    Raises:
        ConfigError: it is too large to be sent, or cannot be read.
    """
    modules = _modules()
    _refuse_large(modules)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, place in sorted(modules.items()):
            for path in _files(place):
                inside = name if place.is_dir() else place.name
                relative = path.relative_to(place).as_posix() if place.is_dir() else ""
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise ConfigError(f"code: {path} cannot be read: {error.strerror}") from error
                _add(archive, f"{inside}/{relative}" if relative else inside, content)
        # With these, names of components mean on a worker what they mean here.
        for distribution in _providers():
            if modules.keys() & set(_tops(distribution)):
                folder = f"{distribution.name.replace('-', '_')}-{distribution.version}.dist-info"
                for text, old in (("METADATA", "PKG-INFO"), ("entry_points.txt", "")):
                    said = distribution.read_text(text) or (old and distribution.read_text(old))
                    _add(archive, f"{folder}/{text}", (said or "").encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


# ---------------------------------------------------------------------------------- what goes


def _modules() -> dict[str, Path]:
    """The top-level modules to send: the file or folder of each."""
    found: dict[str, Path] = {}
    for distribution in _providers():
        for name in _tops(distribution):
            spec = find_spec(name)
            places = spec.submodule_search_locations if spec else None
            _take(found, name, [spec.origin] if spec and not places else places)
    for name, module in list(sys.modules.items()):
        if "." not in name and name not in ("__main__", "__mp_main__"):
            places = getattr(module, "__path__", None)
            _take(found, name, [getattr(module, "__file__", None)] if places is None else places)
    for folder in _own_folders():
        for path in sorted(folder.iterdir()):
            if path.suffix == ".py" and path.is_file():
                _take(found, path.stem, [str(path)])
            elif (path / "__init__.py").is_file():
                _take(found, path.name, [str(path)])
    return found


def _take(found: dict[str, Path], name: str, places: Iterable[str | None] | None) -> None:
    for place in places or ():
        path = Path(place).resolve() if place else None
        if name not in found and path is not None and path.exists() and not _installed(path):
            found[name] = path


def _providers() -> Iterator[Distribution]:
    seen = set()
    for distribution in distributions():
        # A build leaves a second description of a package beside its source.
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        if any(entry.group.startswith("nasforge.") for entry in distribution.entry_points):
            yield distribution


def _tops(distribution: Distribution) -> set[str]:
    entries = (e for e in distribution.entry_points if e.group.startswith("nasforge."))
    return {entry.module.partition(".")[0] for entry in entries}


def _own_folders() -> list[Path]:
    """The folders of modules that may be imported later: the script's, and the working folder."""
    folders = [Path(folder or ".").resolve() for folder in sys.path]
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    own = [Path(script).resolve().parent] if script else []
    if Path.cwd() in folders:
        own.append(Path.cwd())
    return [folder for folder in dict.fromkeys(own) if folder in folders and not _installed(folder)]


def _installed(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    kinds = ("stdlib", "platstdlib", "scripts")
    # ``resolve`` on both sides: /lib may be a link to /usr/lib.
    return any(path.is_relative_to(Path(sysconfig.get_path(kind)).resolve()) for kind in kinds)


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for folder, inside, names in os.walk(place):
        inside[:] = sorted(n for n in inside if n != "__pycache__" and not n.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not name.startswith(".") and path.suffix != ".pyc":
                yield path


# ----------------------------------------------------------------------------- what is too much


def _refuse_large(modules: dict[str, Path]) -> None:
    sizes = {
        (name, path): path.stat().st_size for name, at in modules.items() for path in _files(at)
    }
    total = sum(sizes.values())
    if total <= MOST_BYTES:
        return
    of_modules = {at: _total(sizes, at) for at in modules.values()}
    largest = max(of_modules, key=lambda at: of_modules[at])
    inside = {
        largest / path.relative_to(largest).parts[0]
        for _, path in sizes
        if path != largest and path.is_relative_to(largest)
    }
    worst = max(inside, key=lambda at: _total(sizes, at), default=None)
    detail = f" (of them {_mb(_total(sizes, worst))} in {worst.name})" if worst else ""
    raise ConfigError(
        f"code: the modules that workers would be sent are {_mb(total)}, more than the "
        f"{_mb(MOST_BYTES)} that may be: {largest} alone is {_mb(of_modules[largest])}{detail}. "
        "Keep data outside of packages, or install the code on the cluster's machines and give "
        "code: none"
    )


def _total(sizes: dict[tuple[str, Path], int], at: Path) -> int:
    return sum(size for (_, path), size in sizes.items() if path.is_relative_to(at))


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f} MB"
