"""The documentation site: it builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("material", reason="the site needs pip install nasforge[docs]")
pytest.importorskip("mkdocstrings", reason="the site needs pip install nasforge[docs]")

ROOT = Path(__file__).parents[1]
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value for name, value in attrs if value is not None}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        for name in ("href", "src"):
            if name in named:
                self.links.append(named[name])
                if (tag, name) in LOADED and named.get("rel") != "canonical":
                    self.loaded.append(named[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_page_is_there(site: Path) -> None:
    from nas import registry

    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert (site / "systems" / kind / f"{name}.html").exists()
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert all((site / path.with_suffix(".html")).exists() for path in written)
    for module in ("nas.space", "nas.strategy", "nas.evaluator", "nas.supernet", "nas.testing"):
        assert (site / "reference" / f"{module}.html").exists()
    assert not (site / "hooks").exists()


def test_every_internal_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute: of a server's root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            known = pages.get(target)
            lost = known is not None and parts.fragment and parts.fragment != "__skip"
            if not target.exists() or (lost and unquote(parts.fragment) not in known.anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(sorted(set(broken))[:50])


def test_nothing_is_loaded_from_the_network(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [link for page in pages.values() for link in page.loaded]
    assert len(loaded) > 2 * len(pages)
    assert not [link for link in loaded if urlsplit(link).netloc]
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text()


def test_the_start_page_has_the_quickstart(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "retrain_and_export" in text
    assert "regularized_evolution" in text
    assert text.count("md-tabs__item") >= 5
    assert "prefers-color-scheme: dark" in text


def test_the_api_shows_signatures_and_arguments(site: Path) -> None:
    text = (site / "reference" / "nas.data.html").read_text()
    for word in ("from_datasets", "crop_padding", "DataError"):
        assert word in text
