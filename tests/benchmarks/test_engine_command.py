"""``python -m benchmarks.engine``: what it refuses, what it stores, and what it takes up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engine_store import conditions, load_rows, store
from benchmarks.engine_summary import model_row

from benchmarks import engine
from secateur._errors import FileError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No process is started; a list of what would have run."""
    asked: list[str] = []

    def run_model(name: str, *_: Any) -> dict[str, Any]:
        asked.append(name)
        return model_row(name, [{"event": "ours-hung", "bound_s": 60.0}])

    monkeypatch.setattr(engine, "run_model", run_model)
    monkeypatch.setattr(engine, "preload", lambda *_: None)
    return asked


def _now(**changes: Any) -> dict[str, Any]:
    now = conditions(3, 1, True, "line")
    return {**now, "protocol": {**now["protocol"], **changes}}


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--repeats", "0", "--threads", "0", "--out", str(tmp_path / "no" / "x.json")]
    assert engine.main(words) == 2
    text = capsys.readouterr().err
    for part in ("--repeats is 0", "--threads is 0", "there is no folder"):
        assert part in text
    assert engine.main(["--resume"]) == 2
    assert "--out FILE" in capsys.readouterr().err
    assert engine.main(["--quick", "--published", "--types", "--libraries"]) == 2
    assert "--quick and --published and --types and --libraries are 4 selections" in capsys.readouterr().err


def test_published_sizes_are_a_selection_of_their_own(capsys: pytest.CaptureFixture[str], ran: list[str]):
    assert engine.main(["--published", "--only", "*t*"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["protocol"]["reproduce"].startswith("python -m benchmarks.engine --published --only '*t*'")
    assert "hf-published:opt" in ran
    assert all(name.startswith("hf-published:") for name in ran)


def test_types_of_transformers_are_a_selection_of_their_own(capsys: pytest.CaptureFixture[str], ran: list[str]):
    pytest.importorskip("transformers")
    assert engine.main(["--types", "--only", "ba*"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["protocol"]["reproduce"].startswith("python -m benchmarks.engine --types --only 'ba*'")
    assert "hf-type:bart" in ran
    assert all(name.startswith("hf-type:ba") for name in ran)


def test_a_pattern_that_matches_nothing_is_refused(capsys: pytest.CaptureFixture[str]):
    assert engine.main(["--only", "resnet81x"]) == 2
    text = capsys.readouterr().err
    assert "'resnet81x' matches none" in text
    assert "did you mean" in text


def test_the_last_line_is_the_result_and_resume_runs_only_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ran: list[str]
):
    out = tmp_path / "zoo.json"
    assert engine.main(["--only", "torchvision:resnet18", "--out", str(out)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads(out.read_text())
    keys = {"models", "traced", "exact", "wrong", "crashed", "hung", "geomean_speedup", "slower_on", "peer_pruned"}
    assert keys <= set(last)
    assert (last["models"], last["hung"]) == (1, 1)
    assert engine.main(["--only", "torchvision:resnet[13]*", "--out", str(out), "--resume"]) == 0
    capsys.readouterr()
    assert ran.count("torchvision:resnet18") == 1
    names = [row["name"] for row in json.loads(out.read_text())["rows"]]
    assert sorted(names) == sorted(ran)
    assert len(names) > 2


def test_a_file_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "zoo.json"
    for text in ("not json", "[]", "{}", '{"models": [], "protocol": 3}', '{"protocol": {"schema": 2}, "rows": [{}]}'):
        out.write_text(text)
        with pytest.raises(FileError, match="not a result of this benchmark"):
            load_rows(out, _now())
        assert engine.main(["--only", "hf:bert", "--out", str(out), "--resume"]) == 2
        assert "not a result" in capsys.readouterr().err
        assert out.read_text() == text


def test_a_file_of_another_version_or_protocol_is_refused(tmp_path: Path):
    out = tmp_path / "zoo.json"
    store(out, [], _now(schema=1))
    with pytest.raises(FileError, match="has schema 1"):
        load_rows(out, _now())
    store(out, [], _now(repeats=5, code="other"))
    with pytest.raises(FileError) as caught:
        load_rows(out, _now())
    assert "protocol repeats: 5 there, 3 now" in str(caught.value)
    assert "protocol code: 'other' there" in str(caught.value)
    store(out, [], _now(date="2000-01-01", commit="x", reproduce="y"))
    assert load_rows(out, _now()) == {}
    assert load_rows(tmp_path / "none.json", _now()) == {}
