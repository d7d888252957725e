from hypothesis import given
from hypothesis import strategies as st

from numbatch.batching.text_stream import TextStream


class Pieces:
    """Decodes token i as piece i; the last one only when flushed."""

    def __init__(self, pieces):
        self.pieces, self.rest = pieces, pieces[-1] if pieces else ""

    def push(self, token):
        return self.pieces[token] if token < len(self.pieces) - 1 else ""

    def flush(self):
        rest, self.rest = self.rest, ""
        return rest


@given(st.lists(st.text("ab", max_size=3), max_size=8), st.text("ab", min_size=1, max_size=4))
def test_the_text_ends_before_the_first_stop_string_however_it_is_cut(pieces, stop):
    texts = TextStream(Pieces(pieces), (stop,))
    found = None
    for token in range(len(pieces)):
        found = texts.push(token)
        if found:
            break
    found = found or texts.flush()
    whole = "".join(pieces)
    assert texts.text == whole.split(stop)[0]
    assert found == (stop if stop in whole else None)


def test_the_stop_string_that_begins_first_counts():
    texts = TextStream(Pieces(["one two three", ""]), ("three", "two"))
    assert texts.push(0) == "two"
    assert texts.text == "one "
