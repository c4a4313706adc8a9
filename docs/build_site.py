"""Build the documentation site from what is in the repository: `make docs`.

    python docs/build_site.py [FOLDER]        # default: site

The pages are collected in a temporary folder, at the places they have in the repository, so that the same links work
there and on the site. docs/mkdocs.yml has all settings. A warning of mkdocs (a broken link, a page that is not in the
navigation) ends the build; so does a notebook without outputs.
"""
import ast
import html
import logging
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from browser_demo import demo_pages
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from notebook_pages import Pages, notebook_heading, notebook_page

ROOT = Path(__file__).resolve().parent.parent
FILES = ("*.md", "docs/*.md", "model_server/README.md", "nbs_lib/starter/MODEL_CARD.md",
         "docs/*.png", "docs/site.css", "readme_images/*.png", "Assets/Data~/labels.csv", "config/*.yaml",
         "deploy/*.sbatch", "deploy/*.yaml", "deploy/Containerfile", "deploy/triton/*/config.pbtxt")
LIBRARY = ("nbs/[0-9]*.ipynb", "nbs/*/[0-9]*.ipynb")
NOTEBOOKS = ("*.ipynb", "experiments/*.ipynb", *LIBRARY)
PACKAGES = ("nbs_lib", "virtual_room", "model_server")
BAR = r"\|"


def find(*patterns: str) -> list[Path]:
    "The files of the repository that match, as paths relative to its root."
    return [path.relative_to(ROOT) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def table(title: str, rows: list[str]) -> bytes:
    "A page that lists pages."
    return "\n".join([f"# {title}", "", "| module | |", "|---|---|", *rows]).encode()


def library_list() -> bytes:
    "The list of the library's notebooks."
    rows = []
    for path in find(*LIBRARY):
        title, subtitle = notebook_heading(ROOT / path)
        rows.append(f"| [{title}]({path.relative_to('nbs')}) | {subtitle} |")
    return table("The library, in notebooks", rows)


def api_pages(package: str) -> Pages:
    "The list of the modules of a package, and a page for each of them."
    pages, rows = {}, []
    for path in find(f"{package}/**/[a-z]*.py"):
        name = ".".join(path.with_suffix("").parts)
        text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
        rows.append(f"| [{name}]({name}.md) | {text.splitlines()[0] if text else ''} |")
        pages[f"api/{name}.md"] = f"# {name}\n\n::: {name}\n".encode()
    return {f"api/{package}.md": table(package, rows), **pages}


def code_with_bars(found: re.Match) -> str:
    "Code in a table as HTML: GitHub shows its escaped bars as bars, mkdocs does not."
    return f"<code>{html.escape(found[1]).replace(BAR, '&#124;')}</code>"


def for_site(page: bytes) -> bytes:
    "A page as the site needs it: links to notebooks lead to their pages, the link to `nbs` to the list of notebooks."
    text = re.sub(r"\]\(([^)\s#]+)\.ipynb", r"](\1.md", page.decode())
    text = re.sub(r"`([^`\n]*\\\|[^`\n]*)`", code_with_bars, text)
    return text.replace("](nbs)", "](nbs/index.md)").encode()


def collect() -> Pages:
    "All files of the site's source."
    pages = {path.as_posix(): (ROOT / path).read_bytes() for path in find(*FILES)}
    for path in find(*NOTEBOOKS):
        pages |= notebook_page(ROOT / path, path.with_suffix("").as_posix())
    pages["nbs/index.md"] = library_list()
    pages |= demo_pages()
    for package in PACKAGES:
        pages |= api_pages(package)
    return {name: for_site(page) if name.endswith(".md") else page for name, page in pages.items()}


def library_navigation(pages: Pages) -> list[dict]:
    "The part of the navigation that follows from the folders: the notebooks of the library, the modules of the API."
    api = []
    for package in PACKAGES:
        modules = [name for name in pages if name.startswith(f"api/{package}.") and name != f"api/{package}.md"]
        entries = [{Path(name).stem.partition(".")[2]: name} for name in modules]
        api.append({package: [f"api/{package}.md", *entries]})
    notebooks = [name for name in pages if name.startswith("nbs/") and name.endswith(".md")]
    notebooks.remove("nbs/index.md")
    return [{"Library": ["nbs/index.md", *notebooks]}, {"API": api}]


def build_site(pages: Pages, folder: Path, navigation: list | None = None) -> None:
    "Build `pages` into `folder`; without `navigation`, all of them are expected."
    with TemporaryDirectory() as source:
        for name, page in pages.items():
            path = Path(source, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(page)
        config = load_config(str(ROOT / "docs/mkdocs.yml"), docs_dir=source, site_dir=str(folder))
        config.nav = navigation or config.nav + library_navigation(pages)
        build(config)


def main(folder: str = "site") -> None:
    "The whole site, into `folder`."
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        build_site(collect(), Path(folder).resolve())
    except Abort as error:
        raise SystemExit(f"{error} The warnings above say why.") from None
    print(f"{folder}/index.html; to look at it: python -m http.server -d {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
