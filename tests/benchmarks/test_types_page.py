"""``docs/types-of-transformers.md`` says what the stored result says."""

from __future__ import annotations

import types_page


def test_the_page_is_what_the_stored_result_gives():
    assert types_page.PAGE.read_text(encoding="utf-8") == types_page.page(types_page.stored()), "run `make docs`"


def test_every_row_is_on_the_page_once():
    result = types_page.stored()
    lines = types_page.page(result).splitlines()
    for row in result["rows"]:
        cell = f"| `{row['name'].removeprefix('hf-type:')}` |"
        assert sum(line.startswith(cell) for line in lines) == 1


def test_no_column_is_of_a_peer_that_did_not_run():
    lines = [line for line in types_page.page(types_page.stored()).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert not any("not run" in line or "Torch-Pruning" in line for line in lines)
