"""The playground: sliders, four curves and eight completions in one screen, and the feed that brings a
live run to it.

The recorded runs are sent once; the browser plays them without the server. While a run trains, only
the feed is sent again. The curves are drawn without plotly.js, which would take longer to load than
the first picture may.
"""

from lab.dashboard.components.js_component import js_component

playground_element = js_component("playground", "playground_curves")
feed_element = js_component("playground_feed")
