"""The one exception that a user is meant to read."""

from difflib import get_close_matches


class LabError(ValueError):
    """Bad input or a run that cannot go on. The message says what was given, what is accepted and
    what to do.
    """


def unknown(kind: str, given: str, accepted: list[str]) -> LabError:
    """Build the error for a name that does not exist.

    `kind` is the sort of name ("method", "knob"), `given` what the user wrote, `accepted` every
    valid name.
    """
    near = get_close_matches(given, accepted, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return LabError(f"Unknown {kind} '{given}'.{hint} Accepted: {', '.join(sorted(accepted))}.")
