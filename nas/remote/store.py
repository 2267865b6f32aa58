"""Files below a URL, through fsspec."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nas.checkpoints import PART
from nas.errors import ConfigError, JournalError

_WHOLE_OR_NOT = {
    "abfs",
    "abfss",
    "adl",
    "az",
    "gcs",
    "gs",
    "memory",
    "obs",
    "oci",
    "oss",
    "s3",
    "s3a",
    "tos",
}
"""Stores that show an object whole or not at all. Elsewhere it is written beside and renamed."""

_CHUNK = 1 << 20


class Store:
    """Reads and writes the files below a URL, each by its name relative to it.

    Raises ``JournalError`` whatever the store raises, naming the file.

    Raises:
        ConfigError: the URL's protocol is unknown, or what speaks it is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]  # it has no annotations
        except ImportError as error:
            raise ConfigError(f"{url} needs fsspec: pip install fsspec") from error
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:  # fsspec says what to install
            raise ConfigError(f"{url} cannot be reached: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{url} is no place that fsspec knows: {error}") from error
        self._renames = not _WHOLE_OR_NOT & set(_protocols(self._fs))

    def read(self, name: str) -> bytes | None:
        """A file's content; ``None`` where it is not there."""
        with self._told(name):
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        with self._told(name):
            self._placed(name, lambda path: self._fs.pipe_file(path, content))

    def put(self, name: str, file: BinaryIO) -> None:
        """The same from an open file, to its end."""

        def copied(path: str) -> None:
            with self._fs.open(path, "wb") as target:
                while chunk := file.read(_CHUNK):
                    target.write(chunk)

        with self._told(name):
            self._placed(name, copied)

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file to this machine."""
        part = target.with_name(target.name + PART)
        with self._told(name):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self._path(name), str(part))
            part.replace(target)

    def names(self, folder: str) -> dict[str, int]:
        """The files below a folder and their sizes in bytes."""
        with self._told(folder):
            self._fs.invalidate_cache()
            try:
                found: dict[str, Any] = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {
                posixpath.relpath(path, self._root): int(info["size"] or 0)
                for path, info in found.items()
                if not path.endswith(PART)
            }

    def delete(self, name: str) -> None:
        """Deletes a file, where it is there."""
        with self._told(name):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _placed(self, name: str, write: Callable[[str], object]) -> None:
        path = self._path(name)
        if not self._renames:
            write(path)
            return
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        write(path + PART)
        self._fs.mv(path + PART, path)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each protocol's library has errors of its own
            words = " ".join(str(error).split())[:200]
            place = posixpath.join(self.url, name)
            raise JournalError(f"{place}: {type(error).__name__}: {words}") from error


def _protocols(fs: Any) -> tuple[str, ...]:
    inner = getattr(fs, "fs", None)  # a folder of another file system, a cache before it
    if inner is not None and hasattr(inner, "protocol"):
        return _protocols(inner)
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
