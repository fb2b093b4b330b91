"""The page in a real browser: it draws every figure, in light and dark, and asks nobody for anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur.report import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_draws_everything_and_asks_nobody(browser: Any, raw: dict[str, Any], tmp_path: Path, scheme: str):
    raw["model"] = "<script>alert(1)</script>"
    raw["groups"][0]["name"] = raw["groups"][0]["members"][0] = "<img src=x onerror=alert(2)>"
    slower = {**raw, "seed": 1, "pruned": {**raw["pruned"], "latency_ms": raw["dense"]["latency_ms"]}}
    file = tmp_path / "report.html"
    file.write_text(render([raw, slower]), encoding="utf-8")

    context = browser.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.locator(".plot[data-ready]").nth(6).wait_for()

    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    assert page.locator("figure").count() == 6 + 5, "three a run, and what they say together"
    for figure in page.locator("figure").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
    plots = page.locator(".plot .main-svg").all()
    assert len(plots) >= 7
    assert page.locator(".plot .bars path").count() > 20
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot .xtitle')).fill")
    assert ink == {"light": "rgb(27, 29, 31)", "dark": "rgb(233, 233, 230)"}[scheme]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[scheme]
    page.set_viewport_size({"width": 390, "height": 800})
    # Not wait_for_function: it evaluates text as code, which the page's own policy forbids.
    wide = [page.evaluate("document.documentElement.scrollWidth")]
    while wide[-1] > 390 and len(wide) < 20:
        page.wait_for_timeout(100)
        wide.append(page.evaluate("document.documentElement.scrollWidth"))
    assert wide[-1] <= 390, "the page must not scroll sideways on a phone"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the data (CSV)").first.click()
    assert download.value.suggested_filename == "comparison-verdicts.csv"
    assert trouble == []
    if folder := os.environ.get("SECATEUR_SCREENSHOTS"):
        page.set_viewport_size({"width": 1100, "height": 900})
        page.wait_for_timeout(800)
        page.screenshot(path=Path(folder) / f"{scheme}.png", full_page=True)
    context.close()


def test_a_folded_run_is_drawn_when_it_is_opened(browser: Any, raw: dict[str, Any], tmp_path: Path):
    file = tmp_path / "report.html"
    file.write_text(render([{**raw, "seed": seed} for seed in range(7)]), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(file.as_uri())
    page.locator("#comparison .plot[data-ready]").first.wait_for()
    assert page.locator("#run3 .plot[data-ready]").count() == 0
    page.locator("#run3 summary").first.click()
    page.locator("#run3 .plot[data-ready]").first.wait_for()
    box = page.locator("#run3 .plot").first.bounding_box()
    assert box is not None
    assert box["width"] > 300
    page.evaluate("location.hash = '#run5'")
    page.locator("#run5 .plot[data-ready]").first.wait_for()
    assert page.locator("#run6 .plot[data-ready]").count() == 0
    page.close()
