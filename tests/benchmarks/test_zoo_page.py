"""``docs/what-can-be-pruned.md`` says what the stored result says."""

from __future__ import annotations

import zoo_page


def test_the_page_is_what_the_stored_result_gives():
    assert zoo_page.PAGE.read_text(encoding="utf-8") == zoo_page.page(*zoo_page.stored()), "run `make docs`"


def test_every_row_is_on_the_page_once_in_its_family():
    result, published = zoo_page.stored()
    lines = zoo_page.page(result, published).splitlines()
    for name in (row["name"] for row in result["rows"]):
        prefix = next(p for p, _ in zoo_page.FAMILIES if name.startswith(p))
        cell = f"| `{name.removeprefix(prefix)}` |"
        assert sum(line.startswith(cell) for line in lines) >= 1


def test_reasons_become_a_few_words_the_most_first():
    locked = {
        "reaches the model's output": 10,
        "meets a fixed axis in conv1 (convolution)": 3,
        "meets a fixed axis in model (add)": 9,
        "reaches a.b (im2col), an operation without a rule [x.py:3]": 5,
        "the code of Attention [y.py:3] does not follow a cut: shape": 64,
        "the scale of the attention in blocks.0 [y.py:7] is worked out of a size": 32,
        "something that nobody has named yet at all": 1,
    }
    words = zoo_page.few_words(locked)
    assert words == "code of Attention 64, scales of attention 32, fixed axes 12, outputs 10, others 6"
    assert zoo_page.few_words(None) == ""
    assert zoo_page.few_words({"strided slice in the model": 2}) == "strided slice 2"


def test_no_path_of_a_machine_gets_onto_the_page():
    row = {"name": "m", "peer_status": "crashed", "peer_error": "ImportError: no x in /some/where/y.py:3 | z"}
    assert zoo_page._failures([row], "peer") == ["- `m`: crashed; `ImportError: no x in y.py:3 \\| z`"]
