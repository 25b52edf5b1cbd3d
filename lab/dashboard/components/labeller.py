"""The element that asks for one label at a time: two answers to choose between, or one to rate, by keys, by
mouse or by touch.
"""

from lab.dashboard.components.js_component import js_component

labeller_element = js_component("labeller")
