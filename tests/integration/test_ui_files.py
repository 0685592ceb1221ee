"""Files made from an untrusted trace."""

import json
from itertools import count
from types import SimpleNamespace

import pytest

from nemodiff.errors import NemodiffError
from nemodiff.trace.events import Trace
from tests.helpers.engines import sent
from tests.helpers.traces import trace_of
from ui.live.desk import Desk
from ui.page import build, files, watch
from ui.page.files import FORMATS, make
from ui.settings import Settings

TRACE = json.dumps(trace_of({"1": "a", "2": "<b>"}, [1, 2, 1]))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_made(kind):
    form, made = make(kind, TRACE)
    assert len(made) > 100
    assert form is FORMATS[kind]


@pytest.mark.parametrize(
    "asked", [("", ""), ("html", ""), ("html", "{}"), ("exe", TRACE), ("html", TRACE[:-9]), (None, TRACE), ("html", 7)]
)
def test_anything_else_is_one_sentence(asked):
    with pytest.raises(NemodiffError) as error:
        make(*asked)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_two_are_made_at_once_and_a_third_is_told_to_come_back_at_once(monkeypatch):
    def never(_):
        raise AssertionError("read")

    def waits(*_):
        raise AssertionError("waited")

    with files.making(), files.making(), monkeypatch.context() as patch:
        patch.setattr(Trace, "from_json", never)  # what cannot be drawn is not read either
        patch.setattr(files._making._cond, "wait", waits)  # nor does it keep a thread of those that answer everybody
        with pytest.raises(NemodiffError, match="^Others' files are being made: try again in a minute.$"):
            make("html", TRACE)
    assert make("html", TRACE)[1]


@pytest.mark.parametrize("kind", ["gif", *(kind for kind in ("webm", "mp4") if kind in FORMATS)])
def test_a_picture_that_takes_too_long_is_ended_with_a_sentence(kind, monkeypatch):
    seconds = count(0, 25)  # a look at the clock takes 25 s
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(NemodiffError) as error:
        make(kind, TRACE)
    assert str(error.value) == "To draw this run took longer than 60 s, so it was ended: try a shorter run."
    monkeypatch.undo()
    assert make(kind, TRACE)[1]  # its place is free again


def test_charts_that_take_too_long_are_ended_with_a_sentence(monkeypatch):
    page, seconds = Page(), count(0, 25)
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert words(page.ask("draw", TRACE)[0]) == (
        "To draw this run took longer than 60 s, so it was ended: try a shorter run."
    )


class Page:
    """The page's own functions for one visitor."""

    def __init__(self, **settings):
        self.settings = Settings(**settings)
        self.desk = Desk(self.settings)
        self.page = build.build(None, self.settings, desk=self.desk)
        self.visitor = SimpleNamespace(session_hash="s", client=None, headers={})

    def ask(self, name, *values):
        functions = {one.fn.__name__: one.fn for one in self.page.fns.values() if one.fn}
        return functions[name](*sent(name, values), self.visitor)


def words(figure):
    """What an empty figure says."""
    return " ".join(one.text.replace("<br>", " ") for one in figure.layout.annotations)


def test_files_charts_and_opened_traces_count_in_the_visitors_rate():
    page = Page(visitor_rate=3)
    rate = "You started 3 within a minute, as many as one may: wait a little."
    admit = lambda: page.desk.count(page.visitor)  # noqa: E731
    assert make("html", TRACE, admit)
    assert "Tokens over forwards" in page.ask("draw", TRACE)[1].layout.title.text
    for text, says in (("{", "is not a trace"), (TRACE, rate)):  # what cannot be read was work, too
        with pytest.raises(NemodiffError, match=says):
            make("html", text, admit)
    assert words(page.ask("draw", TRACE)[0]) == rate


def test_charts_that_cannot_be_drawn_say_why_and_do_not_stay_the_last_runs():
    page = Page()
    with files.making(), files.making():
        assert [words(one) for one in page.ask("draw", TRACE)] == [
            "Others' files are being made: try again in a minute."
        ] * len(watch.CHARTS)
    assert "is not a nemodiff.trace/1 trace" in words(page.ask("draw", "{}")[0])
    assert all(type(one) is dict for one in page.ask("draw", ""))  # no run yet: nothing changes


def test_opening_a_trace_takes_a_place_and_counts(tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    path.write_text(TRACE, encoding="utf-8")
    monkeypatch.setattr(watch, "uploaded", lambda _: True)
    page = Page(visitor_rate=2)
    with files.making(), files.making():
        assert "Others' files" in json.loads(page.ask("open_trace", {"path": str(path)}))["error"]
    assert json.loads(page.ask("open_trace", {"path": str(path)}))["trace"]
    assert "You started 2 within a minute" in json.loads(page.ask("open_trace", {"path": str(path)}))["error"]
