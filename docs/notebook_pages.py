"""Notebooks as Markdown for the documentation site, with their stored outputs; nothing is executed."""
import base64
import html
import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert

Pages = dict[str, bytes]  # {path: what the file holds}


def with_formulas(text: str) -> str:
    "LaTeX between dollars as MathML, which browsers draw by themselves."
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: convert(found[1], display="block"), text, flags=re.DOTALL)
    return re.sub(r"\$([^$`\n]+)\$", lambda found: convert(found[1]), text)


def without_flags(source: str) -> str:
    "The code of a cell without its lines of nbdev's flags."
    return re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE)


def is_hidden(cell) -> bool:
    "Is a code cell flagged as not meant for readers?"
    return bool(re.match(r"#\| *(hide|default_exp)", cell.source))


def show_text(text: str) -> str:
    "What a cell has printed."
    return f'<pre class="output">{html.escape(text.rstrip())}</pre>'


def show_html(text: str) -> str:
    "A table or other HTML of a cell, without its styles, which fit a light page only."
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(['<div class="output">', *lines, "</div>"]) if lines else ""


def show_output(output, image: str) -> tuple[str, Pages]:
    "One output as Markdown, and the file of its image, to be named `image`."
    if output.output_type == "stream":
        return show_text(output.text), {}
    if "image/png" in output.data:
        return f"![output]({Path(image).name})", {image: base64.b64decode(output.data["image/png"])}
    if "text/html" in output.data:
        return show_html(output.data["text/html"]), {}
    return show_text(output.data.get("text/plain", "")), {}


def show_cell(cell, name: str) -> tuple[list[str], Pages]:
    "A cell as blocks of Markdown, and the files of its images, whose names begin with `name`."
    if cell.cell_type == "markdown":
        return [with_formulas(cell.source)], {}
    if is_hidden(cell):
        return [], {}
    blocks = [f"````python\n{without_flags(cell.source)}\n````"]
    images = {}
    for i, output in enumerate(cell.outputs):
        text, files = show_output(output, f"{name}-{i}.png")
        blocks.append(text)
        images |= files
    return blocks, images


def notebook_page(path: Path, name: str) -> Pages:
    "The page and the images of a notebook; `name` is the path of the page without suffix."
    cells = nbformat.read(path, 4).cells
    if not any(cell.get("outputs") for cell in cells):
        raise SystemExit(f"{name}.ipynb has no outputs: run it (make notebooks, make run), then build the site again")
    blocks, images = [], {}
    for i, cell in enumerate(cells):
        cell_blocks, files = show_cell(cell, f"{name}-{i}")
        blocks += cell_blocks
        images |= files
    return {f"{name}.md": "\n\n".join(blocks).encode(), **images}


def notebook_heading(path: Path) -> tuple[str, str]:
    "Title and subtitle of a library notebook."
    title, _, subtitle = nbformat.read(path, 4).cells[0].source.partition("\n")
    return title.lstrip("# "), subtitle.strip("\n> ")
