"""What an element of a page was sent, for tests without a browser."""

import base64
import json

import numpy as np


def sent(app, key):
    """The data of the element `key` of an AppTest; its drawing, which travels as text, is parsed: `figure` and `sliders`."""
    data = next(json.loads(e.proto.json) for e in app.get("bidi_component") if json.loads(e.proto.json).get("key") == key)
    return data | json.loads(data["drawing"], object_hook=_decoded)


def _decoded(value):
    return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist() if "bdata" in value else value
