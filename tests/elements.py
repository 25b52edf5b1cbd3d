"""A page without a browser: opened at an address, what it says, and what its elements were sent."""

import base64
import json

import numpy as np
from streamlit.testing.v1 import AppTest


def opened(source, **query):
    """The page that `source` shows at an address with this query; it raised nothing."""
    app = AppTest.from_string(source, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def texts(app, *kinds):
    """All that a page says in elements of these kinds, markdown and captions unless others are named."""
    return " ".join(e.value for kind in kinds or ("markdown", "caption") for e in app.get(kind))


def sent(app, key):
    """The data of the element `key` of an AppTest; its drawing, which travels as text, is parsed: `figure` and `sliders`."""
    data = next(json.loads(e.proto.json) for e in app.get("bidi_component") if json.loads(e.proto.json).get("key") == key)
    return data | json.loads(data["drawing"], object_hook=_decoded)


def _decoded(value):
    return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist() if "bdata" in value else value
