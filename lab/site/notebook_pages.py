"""The course's notebooks as pages of the site: text, code, and the outputs that the files hold.

A figure becomes the picture that stands in the notebook beside it. A hint and a solution stay
folded. Nothing is executed.
"""

import base64
import re
from dataclasses import dataclass, field

import nbformat

from lab.course.build_notebooks import has_tag

LINK_TO_NOTEBOOK = re.compile(r"\]\(([\w-]+)\.ipynb(#[^)]*)?\)")
FENCE = "~~~~"  # outputs may contain ```
NOTE = (
    "*This is the notebook `notebooks/{name}.ipynb` with the outputs of its last execution, in which"
    " every prediction was its first option. In JupyterLab, which `make lab` opens, you predict, its"
    " cells run and its sliders move.*"
)
OUTPUT = " { .text .lab-output }"


@dataclass
class NotebookPage:
    """A notebook as Markdown, and the PNG pictures that it shows, by file name."""

    markdown: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def notebook_page(notebook: nbformat.NotebookNode, name: str) -> NotebookPage:
    """The page of the notebook `name`; its pictures are named after it."""
    page = NotebookPage("")
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(markdown_for_site(cell.source))
            continue
        block = fenced(cell.source, "python")
        block += "".join(_output(output, page, name) for output in cell.get("outputs", []))
        parts.append(folded("Solution", block) if has_tag(cell, "solution") else block)
    parts.insert(1, NOTE.format(name=name))
    page.markdown = "\n\n".join(parts) + "\n"
    return page


def markdown_for_site(text: str) -> str:
    """Text of a notebook for the site's Markdown: links lead to pages, and Markdown between
    `<details>` and `</details>` is read.
    """
    text = LINK_TO_NOTEBOOK.sub(r"](\1.md\2)", text)
    return text.replace("<details>", '<details markdown="1">')


def fenced(text: str, language: str) -> str:
    """The text as a block of code."""
    return f"{FENCE}{language}\n{text.rstrip()}\n{FENCE}\n"


def folded(summary: str, text: str) -> str:
    """The text below a line that opens it."""
    return f'<details markdown="1"><summary>{summary}</summary>\n\n{text}\n</details>'


def _output(output: nbformat.NotebookNode, page: NotebookPage, name: str) -> str:
    """An output as Markdown; a picture goes into `page.pictures`."""
    if output.output_type == "stream":
        return "\n" + fenced(output.text, OUTPUT)
    if output.output_type == "error":
        return "\n" + fenced(f"{output.ename}: {output.evalue}", OUTPUT)
    data = output.data
    if "image/png" not in data:
        return "\n" + fenced(data["text/plain"], OUTPUT)
    file_name = f"{name}-{len(page.pictures) + 1}.png"
    page.pictures[file_name] = base64.b64decode(data["image/png"])
    alt = re.sub(r"([\[\]\\])", r"\\\1", " ".join(data["text/plain"].split()))
    return f"\n![{alt}]({file_name}){{ loading=lazy }}\n"
