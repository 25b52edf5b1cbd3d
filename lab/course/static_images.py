"""A PNG image beside every figure of an executed notebook, for viewers that cannot draw plotly
figures. Chromium renders it without the network.
"""

import base64
import io

import nbformat
from PIL import Image
from plotly.offline import get_plotlyjs

from lab.course.chromium import chromium_path
from lab.course.widgets import PLOTLY_MIME
from lab.errors import LabError

IMAGE_WIDTH, IMAGE_SCALE = 860, 1.25
"""Width in pixels (GitHub shows a notebook about 900 wide), and pixels of the PNG per pixel."""
PALETTE_COLOURS = 128
"""Colours of an image: enough for lines and smooth letters, in a quarter of the bytes."""
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
]
_DRAW = """async ([figure, width, scale]) => Plotly.toImage(
    {data: figure.data, layout: {...figure.layout, width, autosize: false}},
    {format: "png", width, height: figure.layout.height || 450, scale})"""


def add_pictures(notebook: nbformat.NotebookNode) -> None:
    """Add a PNG to every figure. Raises `LabError` when Chromium or playwright is not installed."""
    figures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if PLOTLY_MIME in output.get("data", {})
    ]
    browser_path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser_path = None
    if not browser_path:
        raise LabError(
            "Pictures of figures take Chromium and playwright: apt install chromium, then make env."
            " Without them the notebooks still run in JupyterLab; only writing them for a static"
            " viewer needs both."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.set_content("<html><body></body></html>")
        page.add_script_tag(content=get_plotlyjs())
        for output in figures:
            url = page.evaluate(_DRAW, [output["data"][PLOTLY_MIME], IMAGE_WIDTH, IMAGE_SCALE])
            png = base64.b64decode(url.partition(",")[2], validate=True)
            output["data"]["image/png"] = base64.b64encode(with_palette(png)).decode()
            output["metadata"] = nbformat.from_dict(
                {"image/png": {"width": IMAGE_WIDTH, "alt": output["data"]["text/plain"]}}
            )
        browser.close()


def with_palette(png: bytes) -> bytes:
    """Return the PNG with at most `PALETTE_COLOURS` colours; fewer colours stay unchanged."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(
        PALETTE_COLOURS, dither=Image.Dither.NONE
    ).save(out, "PNG", optimize=True)
    return out.getvalue()
