"""The documentation site: it is built whole, every link in it leads somewhere, and no page asks another server."""
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import ROOT

pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
pytest.importorskip("mkdocstrings", reason="needs pip install '.[docs]'")
pytest.importorskip("latex2mathml", reason="needs pip install '.[docs]'")
sys.path.insert(0, str(ROOT / "docs"))

import build_site  # noqa: E402
import notebook_pages  # noqa: E402
from docments import read_comments  # noqa: E402
from mkdocs.exceptions import Abort  # noqa: E402

pytestmark = pytest.mark.slow
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("use", "href")}


class Page(HTMLParser):
    "What a page links to, what it loads, and the places in it that a link may name."

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        "Note the addresses and names in one tag."
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name in ("id", "name"):
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "The whole site, built once."
    folder = tmp_path_factory.mktemp("site")
    build_site.main(str(folder))
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    "All pages but the one for missing pages, whose links begin at the root of a server."
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def is_local(address: str) -> bool:
    "Is this an address on the site itself?"
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def leads_somewhere(address: str, path: Path, pages: dict[Path, Page]) -> bool:
    "Is there a file, and the place in it, that a page at `path` links to?"
    parts = urlsplit(address)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if parts.fragment and target in pages:
        return unquote(parts.fragment) in pages[target].places
    return target.is_file()


def test_no_link_is_broken(pages):
    assert len(pages) > 100
    broken = []
    for path, page in pages.items():
        local = filter(is_local, page.links + page.loaded)
        broken += [(path.name, address) for address in local if not leads_somewhere(address, path, pages)]
    assert not broken


def test_no_page_loads_from_another_server(site, pages):
    foreign = [address for page in pages.values() for address in page.loaded if not is_local(address)]
    assert not [address for address in foreign if not address.startswith("data:")]
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not [style for style in styles if "url(http" in style or "url(//" in style or "@import" in style]


def test_search_finds_guides_notebooks_and_functions(site):
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    for words in ("device-side assert triggered", "nbs/01_labels.html", "api/virtual_room.plan.html"):
        assert words in index


def test_api_pages_show_the_comments_of_parameters(site):
    assert "The contents of a labels.csv" in (site / "api/nbs_lib.labels.html").read_text(encoding="utf-8")


def test_comments_of_parameters_are_read():
    function = "def f(\n    a, # First\n    *, b=1, # Second\n    c, d, # Both\n):\n    x = 1 # no parameter\n"
    assert read_comments(function) == {"a": "First", "b": "Second", "c": "Both", "d": "Both"}
    assert read_comments("class A:\n    x: int = 0 # Pixels\n    y: int\n") == {"x": "Pixels"}
    assert read_comments("def f(a): # why\n    return a\n") == {}


def test_bars_in_tables_of_code():
    assert build_site.for_site(rb"| `a\|b` | `c` |") == b"| <code>a&#124;b</code> | `c` |"


@pytest.mark.parametrize("text", ["[gone](gone.md)", "[gone](#gone)", "[gone](nbs/gone.ipynb)", "![gone](gone.png)"])
def test_a_broken_link_ends_the_build(tmp_path, text):
    page = build_site.for_site(text.encode())
    with pytest.raises(Abort, match="1 warnings"):
        build_site.build_site({"README.md": page}, tmp_path, ["README.md"])


def test_a_page_outside_the_navigation_ends_the_build(tmp_path):
    pages = {"README.md": b"# Home", "lost.md": b"# Lost"}
    with pytest.raises(Abort, match="1 warnings"):
        build_site.build_site(pages, tmp_path, ["README.md"])


def test_a_notebook_without_outputs_ends_the_build(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(notebook, tmp_path / "empty.ipynb")
    with pytest.raises(SystemExit, match="empty.ipynb has no outputs"):
        notebook_pages.notebook_page(tmp_path / "empty.ipynb", "empty")
