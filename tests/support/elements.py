"""A page without a browser: opened at an address, what it says, and what its elements were sent."""

import base64
import json
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

PAGES = Path(__file__).parents[2] / "lab" / "dashboard" / "pages"


def opened(source, **query):
    """A page at an address with this query; it raised nothing. `source` is the name of a page in
    lab.dashboard.pages, a script, or the path of one.
    """
    script = source if "\n" in str(source) else page_script(source)
    app = (
        AppTest.from_file(source, default_timeout=60)
        if isinstance(source, Path)
        else AppTest.from_string(script, default_timeout=60)
    )
    for name, value in query.items():
        app.query_params[name] = value
    return healthy(app.run())


def page_script(name):
    """A script that shows the page of this name: a module of lab.dashboard.pages, or a package."""
    module = f"{name}.page" if (PAGES / name).is_dir() else name
    return f"from lab.dashboard.pages.{module} import page\npage()\n"


def healthy(app):
    """The same page, which has raised nothing."""
    assert not app.exception, app.exception
    return app


def unfolded(app):
    """The page with all its folds open whose content is made when they are opened."""
    for fold in app.expander:
        if fold.proto.id:
            key = fold.proto.id.split("-", 2)[2]  # after the mark of all ids, and a hash
            app.session_state[key] = True
    return healthy(app._run())  # `run` fails where a select box holds what a visitor typed


def texts(app, *kinds):
    """All that a page says, in elements of every kind unless some are named."""
    return " ".join(
        e.value
        for kind in kinds or ("markdown", "caption", "text", "warning", "error")
        for e in app.get(kind)
    )


def sent(app, key):
    """The data of the element `key` of an AppTest; its drawing, which travels as text, is parsed:
    `figure` and `sliders`.
    """
    data = next(
        data
        for e in app.get("bidi_component")
        for data in json.loads(e.proto.json)
        if data.get("key") == key
    )
    return data | json.loads(data["drawing"], object_hook=_decoded)


def _decoded(value):
    return (
        np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
        if "bdata" in value
        else value
    )
