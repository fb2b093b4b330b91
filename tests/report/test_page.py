"""The page's structure, its escaping and the data behind its figures, without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from secateur._errors import FileError, UsageError
from secateur.card import parse_card
from secateur.report import render, write_report
from secateur.report.figure import Sheet


class _Outline(HTMLParser):
    """What the tests ask of a page: tags with attributes, and the text of the links that leave it."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(raw: dict[str, Any]) -> str:
    return render([raw])


def _without_plotly(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_structure(page: str):
    outline = _Outline(page)
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("h1")) == len(outline.all("main")) == 1
    assert len(outline.all("figure")) == 3
    plots = [a for a in outline.all("div") if a.get("role") == "img"]
    assert len(plots) == 2
    assert all(len(a["aria-label"] or "") > 40 for a in plots)
    assert all("scope" in a for a in outline.all("th"))
    assert page.count("secateur prune cifar-resnet20") == 4, "the reproduce line stands under every figure"
    assert page.count("Hardware: cpu Example CPU at 2.4 GHz, cores 2, memory 8 GB") == 4
    assert "cut = masked: max error 3.1e-16, exact in float64" in page
    assert "\u221250\u00a0% MACs, 1.61× faster on this CPU, \u22120.4 points" in page


def test_asks_nobody_for_anything(page: str):
    assert "default-src 'none'" in page
    outline = _Outline(page)
    assert all("src" not in attributes for _, attributes in outline.tags)
    for tag in ("link", "a"):
        assert all((a["href"] or "").startswith(("data:", "#")) for a in outline.all(tag))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_chart_library_stands_in_it_once(raw: dict[str, Any], page: str):
    assert page.count("plotly.js v") == render([raw, raw]).count("plotly.js v") == 1


def test_text_of_others_is_escaped(raw: dict[str, Any]):
    attack = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
    raw |= {"model": attack, "data": attack, "method": attack, "reproduce": attack, "notes": [attack]}
    raw["hardware"] = {attack: attack}
    raw["versions"] = {attack: attack}
    raw["budget"] = {attack: attack}
    raw["dense"][attack] = 0.5
    raw["recovery"]["name"] = attack
    raw["comparisons"][0]["name"] = attack
    raw["created"] = f'"{attack}'
    for group in raw["groups"]:
        group.update(name=attack, kind=attack, reason=attack, members=[attack, attack])
    for index, point in enumerate(raw["history"]):
        point["stage"] = attack if index % 2 else f"{attack} in the run itself"
    page = render([raw, raw], title=attack)
    assert "<script>alert" not in page
    assert "<img" not in _without_plotly(page)
    assert all("onerror" not in attributes for _, attributes in _Outline(page).tags)


def test_drawings_are_json_with_escaped_texts(raw: dict[str, Any]):
    raw["groups"][0]["members"][0] = "<b>conv1"
    drawings = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', render([raw]), flags=re.DOTALL)
    widths, recovery = map(json.loads, drawings)
    assert widths["layout"]["yaxis"]["ticktext"][0] == "&lt;b&gt;conv1"
    assert widths["layout"]["barmode"] == "overlay"
    dense, kept = widths["data"]
    assert dense["x"][0] == 16
    assert kept["x"][0] == 12
    assert len(widths["layout"]["shapes"]) == 3 * 3, "three brackets of three strokes"
    assert "n = 13 groups" in widths["layout"]["xaxis"]["title"]["text"]
    assert recovery["layout"]["shapes"][0]["x0"] == 3, "the cut"
    assert recovery["layout"]["shapes"][1]["y0"] == pytest.approx(93.37), "the dense baseline"
    assert max(recovery["data"][0]["x"]) == 43, "the epochs of the stages follow each other"


def test_csv(page: str):
    links = [a for a in _Outline(page).all("a") if "download" in a]
    assert [a["download"] for a in links] == ["run1-table.csv", "run1-widths.csv", "run1-recovery.csv"]
    sheets = []
    for link in links:
        head, _, body = (link["href"] or "").partition(",")
        assert head == "data:text/csv;charset=utf-8"
        sheets.append(list(csv.DictReader(io.StringIO(unquote(body)))))
    table, widths, recovery = sheets
    names = ["dense", "right after the cut", "recovered (finetune)", "scratch-e", "scratch-b"]
    assert [row["network"] for row in table] == names
    assert table[2]["MACs"] == "62900000"
    assert table[2]["accuracy difference (points)"] == "-0.42"
    assert table[1]["accuracy"] == "0.612"
    assert table[2]["latency IQR (ms)"] == "0.41"
    assert table[2]["runs"] == "50"
    assert widths[0]["coupled layers"] == "conv1; layer1.0.conv2; layer1.1.conv2; layer1.2.conv2"
    assert widths[-1]["reason"] == "it is the output of the model"
    assert len(recovery) == 45
    assert recovery[4]["event"] == "cut"


def test_a_spreadsheet_runs_nothing():
    text = Sheet(("a", "b"), (("=1+1", -1), ('he said "no", twice', None))).csv()
    assert text == 'a,b\r\n\'=1+1,-1\r\n"he said ""no"", twice",\r\n'


def test_a_bare_card_has_no_empty_figures(raw: dict[str, Any]):
    for key in ("groups", "history", "comparisons", "recovery", "notes"):
        del raw[key]
    del raw["pruned"]["latency_ms"]
    page = render([parse_card(raw)])
    assert len(_Outline(page).all("figure")) == 1
    assert "time not measured" in page
    assert "not measured" in page


def test_scratch_curves_start_at_their_own_first_epoch(raw: dict[str, Any]):
    raw["history"] += [{"stage": "scratch-e", "epoch": e, "accuracy": 0.3 * e} for e in (1, 2, 3)]
    drawings = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', render([raw]), flags=re.DOTALL)
    own, scratch = json.loads(drawings[1])["data"]
    assert max(own["x"]) == 43, "the curve of the run itself is not drawn on"
    assert scratch["x"] == [1, 2, 3]
    assert scratch["y"] == pytest.approx([30, 60, 90])


def test_a_history_of_nothing_but_comparisons_has_no_curve(raw: dict[str, Any]):
    raw["history"] = [{"stage": "scratch-e", "epoch": 1, "accuracy": 0.5}]
    assert len(_Outline(render([raw])).all("figure")) == 2


def test_a_quality_of_another_name(raw: dict[str, Any]):
    del raw["dense"]["accuracy"], raw["pruned"]["accuracy"], raw["history"]
    raw["comparisons"] = []
    raw["dense"]["bits_per_character"] = 1.10
    raw["pruned"]["bits_per_character"] = 1.14
    page = render([raw])
    assert "bits per character" in page
    assert "+0.040" in page
    assert "points" not in _without_plotly(page[page.index("<main") :])


def test_very_many_layers_get_one_row_a_group(raw: dict[str, Any]):
    raw["groups"] = [
        {"name": f"stream{i}", "kind": "channel", "width": 8, "kept": 4, "members": [f"conv{i}.{j}" for j in range(30)]}
        for i in range(4)
    ]
    assert "[ 30 coupled layers" in render([raw])


def test_write_report(raw: dict[str, Any], tmp_path: Path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        (folder / "card.json").write_text(json.dumps(raw), encoding="utf-8")
    assert write_report(folders) == folders[0] / "report.html"
    assert "2 runs on cifar-resnet20" in (folders[0] / "report.html").read_text(encoding="utf-8")
    assert write_report(folders[:1], tmp_path / "x.html") == tmp_path / "x.html"
    (folders[0] / "card.json").write_text("{", encoding="utf-8")
    (folders[1] / "card.json").unlink()
    with pytest.raises(FileError) as caught:
        write_report(folders)
    assert "truncated" in str(caught.value)
    assert "cannot be read" in str(caught.value)
    with pytest.raises(UsageError, match="at least one card"):
        write_report([])


def test_an_output_that_cannot_be_written(raw: dict[str, Any], tmp_path: Path):
    (tmp_path / "card.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(FileError, match="cannot be written"):
        write_report([tmp_path], tmp_path / "missing" / "report.html")


def test_torch_is_not_imported():
    program = (
        "import sys, types\n"
        "package = types.ModuleType('secateur'); package.__path__ = [sys.argv[1]]; sys.modules['secateur'] = package\n"
        "import secateur.report\n"
        "assert not {'torch', 'plotly', 'jinja2'} & set(sys.modules)\n"
    )
    source = Path(render.__code__.co_filename).parents[1]
    subprocess.run([sys.executable, "-c", program, str(source)], check=True)
