"""Errors a person can act on: one sentence that says what was wrong and what to do."""

import reprlib


class NemodiffError(ValueError):
    """Base of all expected errors; its text is shown on the page and by the command line as it is."""


class RequestError(NemodiffError):
    """The request cannot be run: a setting is out of range or does not fit the checkpoint."""


class SettingError(RequestError):
    """A setting whose value does not do. setting: its name in a Request; wanted: the rest of the sentence. Who calls it
    otherwise, as the page and the command line do, says it with that name."""

    def __init__(self, setting: str, wanted: str) -> None:
        super().__init__(setting, wanted)
        self.setting, self.wanted = setting, wanted

    def __str__(self) -> str:
        return self.named(self.setting)

    def named(self, name: str) -> str:
        return f"{name} {self.wanted}"


class CheckpointError(NemodiffError):
    """A checkpoint cannot be found, fetched or read."""


class TraceError(NemodiffError):
    """A trace file is too large, damaged or of another schema."""


_OUTER = reprlib.Repr()
_OUTER.maxlevel = 4


def shown(value: object) -> str:
    """An untrusted value as a sentence shows it: in ASCII, on one line and short. Of a nested one only the outer levels
    are written: all of it would cost its depth times its size."""
    try:
        nested = isinstance(value, list | tuple | dict)
        text = _OUTER.repr(value).encode("ascii", "backslashreplace").decode() if nested else ascii(value)
    except ValueError:  # Python spells no integer of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value nested too deep"
    if len(text) <= 80:
        return text
    if isinstance(value, list | tuple):
        return "a list that is too long to be shown"
    return "an object that is too long to be shown" if isinstance(value, dict) else f"{text[:77]}..."
