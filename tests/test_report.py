"""The report: one offline page with all of a model, shown by a real browser where the machine has one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import facts, refused, run
from test_machine import made_up

import codec
from codec.report import report
from codec.report.facts import BATCHES, SPARSITIES

pytest.importorskip("plotly")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Blocks, a dead row and column, a layer that is pruned away, and a name that would end a script."""
    random = np.random.default_rng(0)
    tensors = {}
    for n in range(3):
        w = np.where(random.random((64, 128)) < 0.8, 0, random.standard_normal((64, 128))).astype(np.float32)
        w[5], w[:, 7] = 0, 0
        tensors[f"layers.{n}.fc.weight"] = w
    tensors |= {"gone": np.zeros((64, 64), np.float32), "bias": np.ones(64, np.float32)}
    tensors["</script><b>x"] = random.standard_normal((80, 64)).astype(np.float16)
    path = tmp_path / "model.safetensors"
    codec.save_file(tensors, path, plan={"*": "dense"})
    return path


@pytest.fixture
def page(model: Path, tmp_path: Path) -> Path:
    report(model, tmp_path / "report.html", machine=made_up())
    return tmp_path / "report.html"


def embedded(page: Path, name: str) -> object:
    text = page.read_text()
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_is_whole_and_needs_no_network(page: Path) -> None:
    text = page.read_text()
    assert page.stat().st_size < 5_000_000
    assert "{{" not in text
    assert not re.search(r"(src|href)\s*=|@import|url\(|fetch\(|XMLHttp", text[: text.index('id="plotly"')])
    assert "<b>x" not in text
    found = embedded(page, "facts")
    assert {row["name"] for row in found["tensors"]} >= {"layers.0.fc.weight", "</script><b>x"}
    assert any("Layer collapse: gone" in line for line in found["advice"])
    assert any("as fast as the dense library" in line for line in found["advice"])
    one = next(row for row in found["tensors"] if row["name"] == "layers.0.fc.weight")
    assert len(one["map"]["rows"]) == len(one["map"]["cells"]) == 40
    assert sum(one["map"]["rows"]) == sum(one["map"]["cols"]) == 1
    assert next(row for row in found["tensors"] if row["name"] == "bias")["map"] is None
    curve = found["curves"][0]
    assert len(curve["seconds"]) == len(BATCHES)
    assert all(len(values) == len(SPARSITIES) for values in curve["bytes"].values())
    charts = embedded(page, "charts")
    assert [len(pair) for pair in charts] == [2] * len(found["curves"])
    assert any("pays from" in str(trace.get("hovertext")) for trace in charts[0][0]["data"])


def test_without_a_profile_there_are_no_times(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = tmp_path / "page.html"
    told = facts("report", model, "-o", target)
    assert told["file_bytes"] == target.stat().st_size
    assert any("codec config --measure" in line for line in told["advice"])
    assert embedded(target, "facts")["batches"] == []
    assert [len(pair) for pair in embedded(target, "charts")] == [1, 1, 1]
    refused(run("report", model, "-o", target), 2, "--force overwrites it")
    assert "page.html" in run("report", model, "-o", target, "--force").stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to show the page")
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_shows_it(page: Path, tmp_path: Path, width: int) -> None:
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1200",
         "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    shown = done.stdout
    assert 'data-ready="true"' in shown  # after the last chart was drawn
    assert shown.count('class="main-svg"') >= 2
    assert "layers.*.fc.weight x 3" in shown
    assert "&lt;/script&gt;&lt;b&gt;x" in shown
    assert re.search(r"largest layers take .* in memory .* times smaller\.", shown)
    assert re.search(r"<li>Save it with codec encode", shown)


def test_without_plotly_it_says_what_to_install(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    refused(run("report", model, "-o", tmp_path / "x.html"), 1, "pip install 'codec[report]'")
    assert not (tmp_path / "x.html").exists()
