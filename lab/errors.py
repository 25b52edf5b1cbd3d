"""The one exception that a user is meant to read."""

from difflib import get_close_matches


class LabError(ValueError):
    """An error in the input, or in a run that cannot continue.

    Its message says what was given, what is accepted and what to do.
    """


def unknown(kind: str, given: str, accepted: list[str]) -> LabError:
    """Return the error for a name that does not exist.

    `kind` is the kind of name ("method", "knob"), `given` the name that the user wrote, `accepted`
    the list of all valid names.
    """
    matches = get_close_matches(given, accepted, n=1, cutoff=0.5)
    hint = f" Did you mean '{matches[0]}'?" if matches else ""
    return LabError(
        f"Unknown {kind} '{given}'.{hint} Accepted: {', '.join(sorted(filter(None, accepted)))}."
    )
