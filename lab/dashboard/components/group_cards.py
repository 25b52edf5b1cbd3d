"""The group of a prompt as cards: they are written token by token, get their rewards, and rise or sink by
their advantages. A field takes the prompt, buttons make updates and take them back.
"""

from lab.dashboard.components.js_component import js_component

group_cards = js_component("group_cards")
