"""Adds what is read from the code to the site: pages of systems, the API, the results' list."""

from __future__ import annotations

import api
import results
import systems
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SECTIONS = {"Systems": systems, "Results": results, "API": api}
"""The sections of the navigation that the code fills."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages that are made into the navigation."""
    config.nav = [
        {
            title: SECTIONS[title].navigation() if title in SECTIONS else inside
            for title, inside in section.items()
        }
        for section in config.nav or ()
    ]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for made in SECTIONS.values():
        for path, text in made.pages().items():
            files.append(File.generated(config, path, content=text))
    return files
