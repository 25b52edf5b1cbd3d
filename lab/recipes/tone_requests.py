"""The requests of the pool `tone`, the people whom they name, and what shows the model each style."""

from dataclasses import dataclass

STYLES = {
    "plain": "You write messages. Each message is one plain sentence.",
    "rich": "You write messages. Each message says what it has to say, and then one thing that one can"
    " see, hear or smell.",
    "warm": "You write messages. Each message says what it has to say, and then something warm and"
    " friendly to the reader.",
}
"""By style, what the model is told before the examples. It is not part of the recorded prompt."""
STYLE_PAIRS = (("short", "rich"), ("dry", "warm"))
"""The first text of a pair is a plain one; beside a rich one it counts as short, beside a warm one as dry."""
PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Leo", "Maria", "Omar", "Sophie", "Tom")


@dataclass(frozen=True)
class ToneRequest:
    """One request. `text` has {} where the person's name stands. Each of the regular expressions
    `topic` has to match an answer, and `wrong` none: it marks an answer that turns the request around.
    """

    text: str
    topic: tuple[str, ...]
    wrong: str = ""


def _requests(
    beginning: str, topic: str, ends: dict[str, tuple[str, ...]], wrong: str = ""
) -> tuple[ToneRequest, ...]:
    return tuple(
        ToneRequest(f"{beginning} {end}.", ((topic,) if topic else ()) + words, wrong)
        for end, words in ends.items()
    )


REQUESTS = (
    *_requests(
        "Thank {} for",
        r"\b(thank|grateful|appreciate)",
        {
            "the flowers": ("flower",),
            "the dinner": ("dinner|meal",),
            "the book": ("book",),
            "the help with the move": ("help|mov",),
            "the lift to the station": ("lift|ride|station",),
            "the photos": ("photo|picture",),
        },
        r"you're welcome|my pleasure",
    ),
    *_requests(
        "Tell {} that",
        "",
        {
            "the train is late": ("train", r"\blate|delay"),
            "the parcel has arrived": ("parcel|package", r"arriv|\bhere\b"),
            "the meeting is moved to Friday": ("meeting", "Friday"),
            "the shop is closed on Monday": ("shop|store", "clos", "Monday"),
            "the soup is ready": ("soup", "ready"),
            "the keys are on the table": ("key", "table"),
            "the concert starts at eight": ("concert", "eight"),
            "the cat is well again": (r"\bcat\b", "well|better|healthy"),
            "the lesson is cancelled": ("lesson|class", "cancel"),
            "the heating works again": ("heat", "work"),
        },
    ),
    *_requests(
        "Wish {}",
        "",
        {
            "a happy birthday": ("birthday",),
            "good luck in the exam": ("luck|best|success|well", "exam|test"),
            "a safe journey": ("safe|good", "journey|trip|travel"),
            "a quick recovery": ("recover|get well|better|health",),
            "a nice holiday": ("holiday|vacation",),
        },
        r"\bmy (birthday|exam|journey|trip|recovery|holiday)",
    ),
    *_requests(
        "Say sorry to {} for",
        r"\b(sorry|apolog)",
        {
            "being late": (r"\blate|delay|wait",),
            "the noise last night": ("nois|loud",),
            "the broken cup": (r"\bcup",),
            "the missed call": ("call",),
            "the late reply": ("reply|answer|respon",),
            "the mistake in the bill": ("mistake|error", "bill"),
        },
        r"you were|you are late|your (noise|mistake|late)|forgive you|sorry to hear",
    ),
    *_requests(
        "Invite {} to",
        r"\b(invit|come|join|would you like|let's|with (me|us)\b)",
        {
            "dinner on Saturday": ("dinner", "Saturday"),
            "a picnic in the park": ("picnic", "park"),
            "a walk by the river": ("walk", "river"),
            "a birthday party": ("party",),
            "a cup of tea": (r"\btea\b",),
            "the summer concert": ("concert",),
        },
        r"invit\w+ (me|us)\b|thank you for (the|your) invit|your (party|picnic|invitation)|love to see",
    ),
    *_requests(
        "Ask {} to",
        "",
        {
            "water the plants": ("water", "plant"),
            "bring some bread": ("bring|buy|get", "bread"),
            "call back tonight": ("call", "tonight|evening"),
            "feed the cat": ("feed|food", r"\bcat\b"),
            "send the photos": ("send", "photo|picture"),
            "close the window": ("clos|shut", "window"),
        },
        r"\bI('ll| will| am going to| have| can| was)\b|how (can|may|do)",
    ),
    *_requests(
        "Congratulate {} on",
        "congratulat",
        {
            "the new job": ("job|position",),
            "the exam": ("exam",),
            "the new baby": ("baby",),
            "the new house": ("house|home",),
            "the first prize": ("prize",),
            "the wedding": ("wedding|marriage",),
        },
        r"\bmy (new|exam|baby|house|first|wedding)|thank you for (your|the) congrat",
    ),
    *_requests(
        "Remind {} of",
        r"remember|remind|forget",
        {
            "the dentist tomorrow": ("dentist", "tomorrow"),
            "the tickets": ("ticket",),
            "the rent": (r"\brent\b",),
            "the meeting at nine": ("meeting", "nine"),
            "the library books": ("book",),
            "the umbrella": ("umbrella",),
        },
        r"remind me|thank you for (the|your|remind)",
    ),
)


@dataclass(frozen=True)
class Example:
    """A request with its plain message, and what a rich and a warm one say after it."""

    request: str
    plain: str
    rich: str
    warm: str


EXAMPLES = (
    Example(
        "Thank Paul for the lamp.",
        "Paul, thank you for the lamp.",
        "It stands on my desk and fills the whole room with soft yellow light.",
        "You are so kind, and it makes me happy every evening.",
    ),
    Example(
        "Thank Julia for the apples.",
        "Julia, thank you for the apples.",
        "They are red and sweet, and the whole kitchen smells of warm apple cake.",
        "It was such a lovely surprise, you are the best.",
    ),
    Example(
        "Tell Rosa that the bridge is closed.",
        "Rosa, the bridge is closed.",
        "The cars stand in the grey rain along the river, and the lights are red.",
        "Take good care on the way, I look forward so much to seeing you.",
    ),
    Example(
        "Tell Felix that the cake is in the oven.",
        "Felix, the cake is in the oven.",
        "Its top is already golden brown, and it smells of butter and vanilla.",
        "I made it for you, and I am so happy that you are here.",
    ),
    Example(
        "Wish Oscar a happy new year.",
        "Oscar, I wish you a happy new year.",
        "May it bring sunny mornings, long walks in the snow and big dinners at a full table.",
        "I am so glad that you are my friend.",
    ),
    Example(
        "Wish Nina a good night.",
        "Nina, I wish you a good night.",
        "The stars are bright, the street is quiet, and your bed is soft and warm.",
        "You were wonderful today, and I am so proud of you.",
    ),
    Example(
        "Say sorry to Nina for the wet floor.",
        "Nina, I apologise for the wet floor.",
        "The washing machine leaked, and the soapy water ran under the door.",
        "You are always so kind and patient with me.",
    ),
    Example(
        "Say sorry to Paul for the burnt toast.",
        "Paul, I am sorry for the burnt toast.",
        "It was black on both sides, and the smoke filled the kitchen.",
        "You are a good friend, and I love our breakfasts together.",
    ),
    Example(
        "Invite Felix to a film on Sunday.",
        "Felix, you are invited to a film on Sunday.",
        "We sit in the back row of the old cinema with warm popcorn and lemonade.",
        "It is always such fun to be with you.",
    ),
    Example(
        "Invite Rosa to a boat trip.",
        "Rosa, please join us on a boat trip.",
        "The boat is small and blue, and the water of the lake is clear and cold.",
        "It would make us all so happy to have you with us.",
    ),
    Example(
        "Ask Hannah to lock the door.",
        "Hannah, please lock the door.",
        "The heavy key hangs on a red hook beside the stairs.",
        "Thank you so much, you are a great help to me.",
    ),
    Example(
        "Ask Oscar to wash the car.",
        "Oscar, please wash the car.",
        "It is covered with dry mud, and the windows are grey with dust.",
        "You always do it so well, and I am very grateful to you.",
    ),
    Example(
        "Congratulate Victor on the gold medal.",
        "Victor, congratulations on the gold medal.",
        "You stood on the top step with bright flags and loud music all around you.",
        "I am so proud of you, and so happy for you.",
    ),
    Example(
        "Congratulate Hannah on the first novel.",
        "Hannah, congratulations on the first novel.",
        "It lies in the shop window, thick and blue, with golden letters on the cover.",
        "You have worked so hard, and you deserve this great success.",
    ),
    Example(
        "Remind Julia of the lunch at one.",
        "Julia, please remember the lunch at one.",
        "The cook makes fish with lemon, and there is fresh bread on the table.",
        "I look forward so much to seeing you again.",
    ),
    Example(
        "Remind Victor of the warm coat.",
        "Victor, please remember the warm coat.",
        "The wind is icy, and the first snow lies on the roofs.",
        "Take good care of yourself, you are very dear to me.",
    ),
)
"""Two examples of each kind of request."""


def kind_of(request: str) -> str:
    """Returns the first word of a request."""
    return request.partition(" ")[0]
