"""Text in pictures: read in its own direction, letters joined, marks on their letters, nothing over what follows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from nemodiff.trace.events import Trace
from tests.helpers.traces import trace_of
from ui.render.frames import Frames, lettering
from ui.render.text_layout import Piece, clusters, cut, is_emoji, layout, tails, visual, width

SHALOM = "שלום"


def test_right_to_left_words_are_seen_from_the_right_and_numbers_among_them_are_not() -> None:
    assert visual("abc") == "abc"
    assert visual(f"a {SHALOM} b") == f"a {SHALOM[::-1]} b"
    assert visual(f"{SHALOM} 12 {SHALOM}") == f"{SHALOM[::-1]} 12 {SHALOM[::-1]}"
    assert visual(f"{SHALOM} (a)") == f"{SHALOM[::-1]} (a)" and visual(f"({SHALOM})") == f"({SHALOM[::-1]})"


@pytest.mark.parametrize("code", [0x378, 0x18D09, 0x10FFFF, *range(0x2066, 0x206A)])
def test_a_character_without_a_direction_of_its_own_stands_among_right_to_left_words(code: int) -> None:
    """Unassigned ones, and the isolates that editors put around names."""
    assert visual(f"a {SHALOM}{chr(code)} b").startswith("a ")
    assert SHALOM[::-1] in visual(f"a {chr(code)}{SHALOM} b")


def test_arabic_letters_take_the_forms_that_join_them_across_tokens() -> None:
    assert visual("سلام") == "\ufee1\ufefc\ufeb3"  # meem alone, the letter of lam and alef, seen that begins
    first, second = layout(["بي", "ت"], 20)[0]
    assert [first, second] == [(Piece(0, 1, "\ufef4\ufe91"),), (Piece(0, 0, "\ufe96"),)]


def test_a_token_keeps_its_own_letters_wherever_they_are_seen() -> None:
    tokens = ["ab ", SHALOM[:2], SHALOM[2:], " c", "\n", f"{SHALOM} 7"]
    pieces, rows = layout(tokens, 20)
    assert rows == 2 and pieces[1:4] == [
        (Piece(0, 5, SHALOM[1::-1]),),
        (Piece(0, 3, SHALOM[:1:-1]),),
        (Piece(0, 7, " c"),),
    ]
    assert pieces[5] == (Piece(1, 0, f"7 {SHALOM[::-1]}"),) or pieces[5] == (Piece(1, 0, f"{SHALOM[::-1]} 7"),)
    wrapped, rows = layout([f"{SHALOM} {SHALOM}"], 5)
    assert [piece.row for piece in wrapped[0]] == [0, 1] and rows == 2  # the first word stays in the first row


def test_marks_stand_on_their_letter_even_from_another_token() -> None:
    assert clusters("e\u0301x\u0302\u0323!") == ["e\u0301", "x\u0302\u0323", "!"]
    assert (width("e\u0301"), width("日"), cut("a\u0301日b", 2), cut("a\u0301日b", 3)) == (1, 2, "a\u0301", "a\u0301日")
    assert [cut("日本", columns) for columns in (1, 2, 3, 4)] == ["", "日", "日", "日本"]
    pieces, _ = layout(["e", "", "\u0301", "x"], 9)
    assert pieces == [(Piece(0, 0, "e\u0301"),), (Piece(0, 1, " "),), (Piece(0, 1, ""),), (Piece(0, 2, "x"),)]


FAMILY, FLAG, THUMB, HEART = "👨\u200d👩\u200d👧", "🇵🇹", "👍🏽", "❤\ufe0f"


def test_what_is_read_as_one_character_takes_one_place() -> None:
    together = [FAMILY, FLAG, THUMB, HEART, "각", "1\ufe0f\u20e3", "क्षि"]
    assert clusters("".join(together)) == together
    assert [width(one) for one in (FAMILY, FLAG, THUMB, HEART, "각", "1\ufe0f\u20e3", "a\u200db")] == [2] * 7
    assert [is_emoji(one) for one in (FAMILY, FLAG, THUMB, HEART, "😀", "日", "a", "é")] == [True] * 5 + [False] * 3
    assert cut(f"{FLAG}{FLAG}", 3) == FLAG and cut(f"ab{FAMILY}c", 4) == f"ab{FAMILY}"


def test_a_flag_or_a_family_of_several_tokens_stands_where_it_begins() -> None:
    tokens = ["🇵", "🇹", "🇪", "🇸", " ", "👨", "\u200d", "👩!", "❤", "\ufe0f"]
    pieces, _ = layout(tokens, 20)
    assert [token[0].text for token in pieces] == ["🇵🇹", "", "🇪🇸", "", " ", "👨\u200d👩", "", "!", "❤\ufe0f", ""]
    assert [token[0].column for token in pieces] == [0, 0, 2, 2, 4, 5, 5, 7, 8, 8]
    assert tails(tokens) == {1: (0, "🇹"), 3: (2, "🇸"), 6: (5, "\u200d"), 7: (5, "👩"), 9: (8, "\ufe0f")}
    assert tails(["a\n", "\u0301"]) == {} == tails(["", "x", ""])


@given(
    st.lists(st.text(st.sampled_from("ae\u0301🇵🇹👨\u200d👩\ufe0f日 \nش\u0650"), max_size=4), max_size=12),
    st.integers(4, 12),
)
def test_every_token_keeps_its_text_and_no_two_places_overlap(tokens: list[str], columns: int) -> None:
    pieces, rows = layout(tokens, columns)
    there = sorted((piece.row, piece.column, width(piece.text)) for token in pieces for piece in token if piece.text)
    for (row, column, wide), (next_row, next_column, _) in zip(there, there[1:], strict=False):
        assert next_row > row or next_column >= column + wide
    assert not there or there[-1][0] < rows
    assert all(tail for _, tail in tails(tokens).values())


def drawn(texts: list[str], **options) -> tuple[Image.Image, Frames]:
    words = {str(i + 1): text for i, text in enumerate(texts)}
    data = trace_of(words, list(range(1, len(texts) + 1))) | {"request": {"prompt": "made", "modes": ["ar"]}}
    data["lanes"] = data["lanes"][:1]
    made = Frames(Trace.from_json(json.dumps(data)), size=20, **options)
    *_, last = (image.copy() for image in made.draw())
    return last, made


def ink(image: Image.Image, made: Frames, column: int, row: int = 0) -> Image.Image:
    """What is drawn in a cell: dark on light, whatever lies behind it."""
    board = made._board
    x, y = board.margin + column * board.type.width, board.text_top + row * board.type.height
    cell = image.crop((x, y, x + board.type.width, y + board.type.height - 4)).convert("L")
    return cell.point(lambda value: 255 if value < 110 else 0)


@pytest.mark.parametrize("shaping", [True, False])
def test_a_picture_shows_arabic_in_its_order(shaping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shaping:
        monkeypatch.setattr(lettering.features, "check", lambda name: False)
    got = drawn(["بيت", "x", "y", "z"])
    for column in range(3):
        cell = ink(*got, column)
        assert cell.getbbox()
        single = [ink(*drawn([form, "x", "y"]), 0) for form in ("\ufe96", "\ufef4", "\ufe91")]
        assert ImageChops.difference(cell, single[column]).getbbox() is None


@pytest.mark.parametrize("shaping", [True, False])
def test_a_picture_shows_a_mark_on_its_letter_and_nothing_beside_it(
    shaping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shaping:
        monkeypatch.setattr(lettering.features, "check", lambda name: False)
    image, made = drawn(["x\u0302", "y", "z", "w"])
    bare, plain = drawn(["x", "y", "z", "w"])
    assert ImageChops.difference(ink(image, made, 1), ink(bare, plain, 1)).getbbox() is None  # y follows at once
    mark = ImageChops.difference(ink(image, made, 0), ink(bare, plain, 0)).getbbox()
    assert mark and mark[3] < made._board.type.height / 2  # above the letter


def test_a_character_of_two_tokens_shows_no_more_than_was_written() -> None:
    words = {"1": "e", "2": "\u0301", "3": "x"}
    states = [[(0, 1)], [(2, 3)], [(1, 2)]]
    events = [
        {"phase": "denoise", "start": 0, "length": 3, "forward": k + 1, "clock_ms": k + 1.0}
        | {"positions": [{"index": index, "token": token, "state": "committed"} for index, token in found]}
        for k, found in enumerate(states)
    ]
    data = trace_of(words, [1, 2, 3]) | {"request": {"prompt": "made", "modes": ["diffusion"]}}
    data["lanes"] = [{"mode": "diffusion", "events": events, "tokens": [1, 2, 3], "finish": "length"}]
    made = Frames(Trace.from_json(json.dumps(data)), size=20)
    cells = [ink(image.copy(), made, 0) for image in made.draw()]
    bare, plain = drawn(["e", "x"])
    assert ImageChops.difference(cells[2], ink(bare, plain, 0)).getbbox() is None
    assert ImageChops.difference(cells[3], cells[2]).getbbox()  # the accent is there


@pytest.mark.parametrize(("text", "letters"), [("🇵🇹", True), ("\U0001f9ff", False)])
def test_what_no_font_has_is_one_box_and_a_flags_has_its_letters(
    text: str, letters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "_colours", lambda engine: None)
    image, made = drawn([text, "y"])
    type_ = made._board.type
    x, y = made._board.margin, made._board.text_top
    inside = image.crop((x + 4, y + 5, x + 2 * type_.width - 4, y + type_.height - 8)).convert("L")
    assert (inside.getextrema()[0] < 110) == letters
    corner = image.crop((x, y, x + 2 * type_.width, y + type_.height)).convert("L")
    assert corner.getextrema()[0] < 60  # the box itself


def guessed(guess: int) -> Image.Image:
    """The cell beside the one in which a token is guessed while the final one, a letter, is still to come; drawn some
    forwards earlier, so that nothing covers what would be written over it."""
    words = {"1": "a", "2": "b", "3": " " * 200, "4": "日本語日本語", "5": "c", "6": "\t" * 20}
    event = {"phase": "denoise", "start": 0, "length": 2}
    beside = {"index": 1, "token": 2, "state": "committed"}
    left = [
        [{"index": 0, "token": 5, "state": "masked"}, beside],
        *([{"index": 0, "token": token, "state": "masked"}] for token in (5, guess)),
        [{"index": 0, "token": 1, "state": "committed"}],
    ]
    events = [event | {"forward": k, "clock_ms": float(k), "positions": one} for k, one in enumerate(left, 1)]
    data = trace_of(words, [1, 2]) | {"request": {"prompt": "made", "modes": ["diffusion"]}}
    data["lanes"] = [{"mode": "diffusion", "events": events, "tokens": [1, 2], "finish": "length"}]
    made = Frames(Trace.from_json(json.dumps(data)), size=20)
    images = [image.copy() for image in made.draw()]
    return ink(images[3], made, 1)


@pytest.mark.parametrize("guess", [3, 4, 6])
def test_a_guess_of_many_spaces_or_wide_letters_stays_in_its_room(guess: int) -> None:
    plain = guessed(5)
    assert plain.getbbox() and ImageChops.difference(guessed(guess), plain).getbbox() is None


def test_a_row_ends_between_words_and_the_space_hangs_there() -> None:
    def rows_of(tokens: list[str], columns: int) -> list[str]:
        pieces, rows = layout(tokens, columns)
        return ["".join(one.text for parts in pieces for one in parts if one.row == row) for row in range(rows)]

    assert rows_of(["a", " b", "cd", "ef", "g"], 6) == ["a ", "bcdefg"]
    assert rows_of(["ab", " cd", " ef"], 5) == ["ab cd ", "ef"]
    assert rows_of(["abc", "def", "gh"], 6) == ["abcdef", "gh"]  # a word alone on its row is broken
    assert rows_of(["a", " bcd", "ef", "ghi"], 6) == ["a ", "bcdef", "ghi"]  # then one longer than a row
    assert rows_of(["1", "]}", "<|end|>"], 8) == ["1]}", "<|end|>"]
    assert rows_of(["日本", "語の", "x"], 6) == ["日本", "語のx"]
    assert layout(["a", " b", "cd", "efg"], 6)[0][1] == (Piece(0, 1, " "), Piece(1, 0, "b"))
