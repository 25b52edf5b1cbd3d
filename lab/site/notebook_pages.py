"""The course's notebooks as pages of the site: text, code, and the outputs that the files hold.

A figure becomes the picture that stands in the notebook beside it. A hint and a solution stay
folded. Nothing is executed.
"""

import base64
import re
from dataclasses import dataclass, field

import nbformat

LINK_TO_NOTEBOOK = re.compile(r"\]\(([\w-]+)\.ipynb(#[^)]*)?\)")
FENCE = "~~~~"  # longer than a fence that a notebook's text may contain


@dataclass
class NotebookPage:
    """A notebook as Markdown, and the PNG pictures that it shows, by file name."""

    markdown: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def notebook_page(notebook: nbformat.NotebookNode, name: str) -> NotebookPage:
    """The page of a notebook; `name` begins the names of its pictures."""
    page = NotebookPage("")
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(markdown_for_site(cell.source))
            continue
        block = fenced(cell.source, "python")
        block += "".join(_output(output, page, name) for output in cell.get("outputs", []))
        parts.append(folded("Solution", block) if "solution" in cell_tags(cell) else block)
    page.markdown = "\n\n".join(parts) + "\n"
    return page


def cell_tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell, such as "exercise", "hint" and "solution"."""
    return cell.metadata.get("tags", [])


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
        return "\n" + fenced(output.text, "text")
    if output.output_type == "error":
        return "\n" + fenced(f"{output.ename}: {output.evalue}", "text")
    data = output.data
    if "image/png" not in data:
        return "\n" + fenced(data["text/plain"], "text")
    file_name = f"{name}-{len(page.pictures) + 1}.png"
    page.pictures[file_name] = base64.b64decode(data["image/png"])
    alt = re.sub(r"([\[\]\\])", r"\\\1", " ".join(data["text/plain"].split()))
    return f"\n![{alt}]({file_name}){{ loading=lazy }}\n"
