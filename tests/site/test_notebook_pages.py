"""Notebooks as pages of the site."""

import base64

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lab.course.build_notebooks import notebooks, read_notebook
from lab.site.notebook_pages import notebook_page

PNG = b"\x89PNG of a curve"


def tagged(cell: nbformat.NotebookNode, tag: str) -> nbformat.NotebookNode:
    cell.metadata["tags"] = [tag]
    return cell


def picture(alt: str) -> nbformat.NotebookNode:
    data = {"image/png": base64.b64encode(PNG).decode(), "text/plain": alt}
    return new_output("display_data", data)


def page_of(*cells):
    return notebook_page(new_notebook(cells=list(cells)), "07-x")


def test_code_is_followed_by_what_it_printed_and_drew():
    out = [new_output("stream", text="```3```\n"), picture("a [curve]\nthat falls")]
    page = page_of(new_markdown_cell("# 07 · Title"), new_code_cell("f(1)", outputs=out))
    title, code, printed, drawn = (
        page.markdown.index(text)
        for text in ("# 07 · Title", "~~~~python\nf(1)\n~~~~", "```3```\n~~~~", "![a ")
    )
    assert title < code < printed < drawn
    assert r"![a \[curve\] that falls](07-x-1.png)" in page.markdown
    assert page.pictures == {"07-x-1.png": PNG}
    assert "`notebooks/07-x.ipynb`" in page.markdown


def test_a_solution_and_a_hint_stay_folded_with_their_markdown_read():
    page = page_of(
        new_markdown_cell("# T"),
        tagged(new_markdown_cell("<details><summary>Hint</summary>\n\n*so*\n\n</details>"), "hint"),
        tagged(new_code_cell("x = 1"), "solution"),
    )
    assert page.markdown.count('<details markdown="1">') == 2
    assert "<summary>Solution</summary>\n\n~~~~python\nx = 1" in page.markdown


def test_a_link_to_another_notebook_leads_to_its_page():
    page = page_of(new_markdown_cell("[next](08-your-own.ipynb#reward) and [b](03-dpo.ipynb)"))
    assert "[next](08-your-own.md#reward) and [b](03-dpo.md)" in page.markdown


def test_every_picture_of_every_notebook_is_shown():
    for path in notebooks():
        notebook = read_notebook(path)
        shown = [
            output
            for cell in notebook.cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        page = notebook_page(notebook, path.stem)
        assert len(page.pictures) == len(shown) == page.markdown.count("{ loading=lazy }")
        assert all(png.startswith(b"\x89PNG\r\n") for png in page.pictures.values())
