"""Slides of the course: the questions, formulas and figures of the notebooks as reveal.js pages."""

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell

from lab.course.build_notebooks import has_tag, notebooks, read_notebook
from lab.course.widgets import PLOTLY_MIME
from lab.errors import unknown
from lab.storage.paths import top_level

REVEAL_FOLDER = Path(__file__).parents[1] / "assets" / "course" / "reveal"
"""reveal.js 4.6.0 from npm, its white theme without fonts, and the styles and formulas of the slides."""
KATEX_FOLDER = top_level("docs") / "assets" / "katex"
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}
<link rel="stylesheet" href="katex/katex.min.css">
{%- endblock html_head_js -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{% block footer_js %}
<link rel="stylesheet" href="reveal.js/dist/slides.css">
<script src="reveal.js/dist/reveal.js"></script>
<script src="katex/katex.min.js"></script>
<script src="reveal.js/dist/formulas.js"></script>
<script>Reveal.initialize({history: true, slideNumber: "c/t", width: 1100, height: 700});</script>
{% endblock footer_js %}
"""
"""nbconvert's page without what it loads from the network."""
LEFT_OUT = ("exercise", "solution", "hint", "setup")
HEADINGS = re.compile(r"^(?=#{1,2} )", re.MULTILINE)
MAX_CHARACTERS = 900
"""The most text of one slide; the rest of a passage is for the notebook."""


def slide_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook of slides: one for every passage and one for every figure. Exercises, hints,
    solutions and code are left out.
    """
    made = copy.deepcopy(notebook)
    made.cells = list(_slides(notebook))
    return made


def _slides(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    for cell in notebook.cells:
        if any(has_tag(cell, tag) for tag in LEFT_OUT):
            continue
        if cell.cell_type == "markdown" and not cell.source.startswith("<details"):
            for passage in filter(str.strip, HEADINGS.split(cell.source)):
                yield _slide(_shortened(passage))
        elif cell.cell_type == "code":
            for output in cell.outputs:
                data = output.get("data", {})
                if PLOTLY_MIME in data and "image/png" in data:
                    alt = data.get("text/plain", "")
                    yield _slide(f"![{alt}](data:image/png;base64,{data['image/png'].strip()})")


def _slide(text: str) -> nbformat.NotebookNode:
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}})


def _shortened(passage: str) -> str:
    """Return whole paragraphs of a passage up to `MAX_CHARACTERS`, but never less than the first two."""
    paragraphs = passage.strip().split("\n\n")
    shown = paragraphs[:2]
    for paragraph in paragraphs[2:]:
        if sum(map(len, shown)) + len(paragraph) > MAX_CHARACTERS:
            break
        shown.append(paragraph)
    return "\n\n".join(shown)


def write_slides(out: Path, only: str = "") -> list[Path]:
    """Write one page of slides for every notebook into the folder `out`, with everything that it needs, so
    that it opens without a network; return the paths of the pages.
    """
    chosen = [path for path in notebooks() if path.name.startswith(only)]
    if not chosen:
        raise unknown("notebook", only, [path.name[:2] for path in notebooks()])
    themes = out / "reveal.js" / "dist" / "theme"
    themes.mkdir(parents=True, exist_ok=True)
    for source in sorted(REVEAL_FOLDER.iterdir()):
        shutil.copyfile(
            source, (themes if source.name == "white.css" else themes.parent) / source.name
        )
    shutil.copytree(KATEX_FOLDER, out / "katex", dirs_exist_ok=True)
    written = []
    for path in chosen:
        exporter = SlidesExporter(
            raw_template=TEMPLATE, reveal_url_prefix="reveal.js", reveal_theme="white"
        )
        resources = {"metadata": {"name": path.stem}}
        page, _ = exporter.from_notebook_node(slide_notebook(read_notebook(path)), resources)
        target = out / f"{path.stem}.html"
        target.write_text(page, "utf-8")
        written.append(target)
    return written
