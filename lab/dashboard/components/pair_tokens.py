"""One preference pair on the loss curve: dragged along it, the pair stands where it stood at a recorded
update, and the tokens of both completions have the colours of their log-ratios then.
"""

from lab.dashboard.components.js_component import js_component

pair_tokens = js_component("pair_tokens")
