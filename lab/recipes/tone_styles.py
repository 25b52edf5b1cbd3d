"""The requests and styles of the pool `tone`, and which two answers make a pair of different styles."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lab.tasks.sentiment import compound_score

TONE_MIN_WORDS, WARMTH_GAP, LENGTH_RATIO = 3, 0.3, 1.5
"""A pair has the words, and differs in VADER's compound score or in length, by at least so much."""
STYLES = {
    "short": "Answer in one short sentence.",
    "rich": "Answer in two sentences full of vivid details.",
    "dry": "Answer in a matter-of-fact tone, without feelings.",
    "warm": "Answer in a warm and friendly tone.",
}
"""By style, the sentence that follows the request when the model is asked. It is not part of the
recorded prompt."""
STYLE_PAIRS = (("short", "rich"), ("dry", "warm"))
ABOUT_THE_WRITER = re.compile(
    r"\b(AI|SmolLM|language model|chatbot|assistant|sentences?|tone|note|feelings)\b|\[",
    re.IGNORECASE,
)
"""Words of a text that speaks about itself or its writer, or that leaves a gap to be filled in."""
RUDE = re.compile(
    r"\b(dumb|jack)?ass\b|\b(damn|hell\b|shit|fuck|stupid|idiot|sex|kill)", re.IGNORECASE
)
TOPIC_LETTERS = 5
"""Words are compared by so many first letters: apology and apologise count as one."""
REQUESTS = (
    "Thank {} for the help.",
    "Tell {} that the meeting is moved to Friday.",
    "Wish {} a good birthday.",
    "Say sorry to {} for being late.",
    "Invite {} to dinner on Saturday.",
    "Ask {} to water the plants.",
    "Tell {} that the train is late.",
    "Congratulate {} on the new job.",
    "Tell {} that the parcel has arrived.",
    "Remind {} of the dentist tomorrow.",
)
PEOPLE = (
    "a neighbour",
    "a colleague",
    "my sister",
    "my teacher",
    "an old friend",
    "a new customer",
    "my grandmother",
    "the team",
    "a flatmate",
    "the landlord",
)


@dataclass(frozen=True)
class Answer:
    """One recorded answer: its text, and the checkpoint or style that it comes from."""

    text: str
    source: str


def are_two_styles(request: str, two: Sequence[Answer]) -> bool:
    """Returns whether both answers are about the request and differ in style: of dry and warm the warm
    one has the higher compound score, and of short and rich the rich one is longer.

    The small model often misses both.
    """
    if any(
        len(answer.text.split()) < TONE_MIN_WORDS
        or ABOUT_THE_WRITER.search(answer.text)
        or RUDE.search(answer.text)
        or not _topic(request) & _topic(answer.text)
        for answer in two
    ):
        return False
    text = {answer.source: answer.text for answer in two}
    if "warm" in text:
        return compound_score(text["warm"]) - compound_score(text["dry"]) >= WARMTH_GAP
    return len(text["rich"]) >= LENGTH_RATIO * len(text["short"])


def _topic(text: str) -> set[str]:
    """The beginnings of a text's longer words."""
    words = re.findall(r"[a-z]{4,}", text.lower())
    return {word[:TOPIC_LETTERS] for word in words} - {"tell", "that", "good", "with"}
