"""Page elements with their own script and styles, and the address of plotly.js on this server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

COMPONENTS_FOLDER = Path(__file__).parent
PLOTLY_VERSION = "4.1.1"  # the plotly.js that the installed plotly package writes for
# The npm package plotly.js-cartesian-dist-min, a third of the whole plotly.js. `make plotly` fetches it.
PLOTLY_FILE_NAME = f"plotly-cartesian-{PLOTLY_VERSION}.min.js"

# The browser reads plotly.js while Python still runs the page. js_component.js waits for the same promise.
PLOTLY_SCRIPT = """<script>
window.labPlotly ??= new Promise((resolve, reject) => {
  const script = Object.assign(document.createElement("script"), { src: "%s", onload: () => resolve(window.Plotly) });
  script.onerror = () => { window.labPlotly = undefined; reject(new Error("plotly.js could not be loaded")); };
  document.head.append(script);
});
</script>"""

# On a narrow window the open menu covers the page, so it closes when a page was picked in it.
MENU_SCRIPT = """<script>
window.labMenu ??= document.addEventListener("click", ({ target }) => {
  if (!target.closest("[data-testid=stSidebarNavLink]") || !matchMedia("(max-width: 768px)").matches) return;
  setTimeout(() => document.querySelector("[data-testid=stSidebarCollapseButton] button")?.click());
}) ?? true;
</script>"""


def js_component(name: str, *parts: str) -> Callable[..., Any]:
    """Returns the function that shows the element of `name`.js, styled by `name`.css. The script may
    use every function of js_component.js, and of the further scripts `parts`. A part that is an
    element of its own is one function of the same name, and brings its styles.

    The data is sent in a list: in a dict Streamlit would search for tables and import pandas.
    """
    script = (COMPONENTS_FOLDER / f"{name}.js").read_text("utf-8")
    styles = [COMPONENTS_FOLDER / f"{part}.css" for part in (*parts, name)]
    mount = st.components.v2.component(
        f"lab_{name}",
        js="".join(map(_part_script, ("js_component", *parts))) + script,
        css="".join(path.read_text("utf-8") for path in styles if path.is_file()),
        isolate_styles=False,
    )
    return lambda data, **options: mount(data=[data], **options)


def _part_script(part: str) -> str:
    """The script of a part. That of an element is closed in a function, so that two elements may use
    the same names.
    """
    script = (COMPONENTS_FOLDER / f"{part}.js").read_text("utf-8")
    element = script.replace("export default function", "return function")
    return f"const {part} = (() => {{\n{element}}})();\n" if element != script else script


def plotly_url() -> str:
    """The URL of plotly.js on this server. The bundle draws the kinds of trace that the lab uses."""
    prefix = st.get_option("server.baseUrlPath").strip("/")
    return f"{'/' + prefix if prefix else ''}/app/static/{PLOTLY_FILE_NAME}"


def page_scripts(has_plotly: bool) -> str:
    """The HTML of the scripts that every page runs, with plotly.js for a page that has its figures."""
    return MENU_SCRIPT + (PLOTLY_SCRIPT % plotly_url() if has_plotly else "")
