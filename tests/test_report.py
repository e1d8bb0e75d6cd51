"""The report: one offline page with all of a model, shown by a real browser where the machine has one."""

import base64
import json
import os
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
    assert any("as fast as with the dense library" in line for line in found["advice"])
    one = next(row for row in found["tensors"] if row["name"] == "layers.0.fc.weight")
    assert len(base64.b64decode(one["map"]["cells"])) == one["map"]["height"] * one["map"]["width"] == 40 * 40
    assert (one["map"]["rows"], one["map"]["cols"]) == ([3], [2])  # row 5 of 64, column 7 of 128
    assert next(row for row in found["tensors"] if row["name"] == "bias")["map"] is None
    curve = found["curves"][0]
    assert len(curve["seconds"]) == len(BATCHES)
    assert all(len(values) == len(SPARSITIES) for values in curve["bytes"].values())
    charts = embedded(page, "charts")
    assert [len(pair) for pair in charts] == [2] * len(found["curves"])
    assert any("pays from" in str(trace.get("hovertext")) for trace in charts[0][0]["data"])


@pytest.mark.parametrize(
    "name", ["{{plotly}}", "{{facts}}", "{{title}}", "{{nothing}}", "a b.0.w", "\u2028", "'\"&<!--"]
)
def test_names_are_text_whatever_they_look_like(name: str, tmp_path: Path) -> None:
    w = np.where(np.arange(64 * 64).reshape(64, 64) % 5, 0, 1).astype(np.float32)
    source, target = tmp_path / f"{name.replace('/', '_')}.safetensors", tmp_path / "page.html"
    codec.save_file({name: w, "gone": np.zeros((64, 64), np.float32)}, source)
    report(source, target, machine=made_up())
    found, text = embedded(target, "facts"), target.read_text()
    assert found["tensors"][0]["name"] == name or found["tensors"][1]["name"] == name
    assert found["name"] == source.name
    assert len(embedded(target, "charts")) == len(found["curves"])
    assert text.count('id="plotly"') == text.count("<title>") == 1


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    source = os.fsencode(tmp_path) + b"/\xff.safetensors"
    codec.save_file({"w": np.zeros((64, 64), np.float32)}, tmp_path / "model.safetensors")
    try:
        os.rename(tmp_path / "model.safetensors", source)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    report(os.fsdecode(source), tmp_path / "page.html", machine=made_up())
    assert "<title>?.safetensors" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, ["Nothing to pack"]),
        ({"v": np.ones(9, np.float32), "s": np.float32(1), "none": np.zeros((0, 4), np.float32)}, ["Nothing to pack"]),
        ({"w": np.arange(4096, dtype=np.uint8).reshape(64, 64)}, ["Nothing to pack", "Run it dense"]),
        ({"w": np.zeros((64, 64), np.float32)}, ["Layer collapse: w", "Run it packed"]),
        ({"w": np.eye(64, dtype=np.int32)}, ["Save it with codec encode"]),
    ],
    ids=["empty", "vectors", "dense", "collapsed", "untimed"],
)
def test_models_of_which_little_is_to_be_said(tensors: dict, words: list, tmp_path: Path) -> None:
    codec.save_file(tensors, tmp_path / "model.safetensors")
    found = report(tmp_path / "model.safetensors", tmp_path / "page.html", machine=made_up())
    for word in words:
        assert any(word in line for line in found["advice"]), found["advice"]
    assert not any("-" in line.split() or "0.00x" in line for line in found["advice"])
    assert len(embedded(tmp_path / "page.html", "facts")["tensors"]) == len(tensors)


def test_many_tensors_have_small_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.report.facts._CELLS", 4 * 100)
    tensors = {f"layers.{n}.w": np.eye(64, dtype=np.float32) for n in range(4)}
    codec.save_file(tensors, tmp_path / "model.safetensors", plan={"*": "dense"})
    found = report(tmp_path / "model.safetensors", tmp_path / "page.html", machine=made_up())
    assert {(row["map"]["height"], row["map"]["width"]) for row in found["tensors"]} == {(10, 10)}
    assert {row["block"] for row in found["tensors"]} == {"layers.*.w"}


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


def dom(page: Path, folder: Path, width: int = 1300) -> str:
    """What a browser makes of a page."""
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1200",
         "--virtual-time-budget=20000", f"--user-data-dir={folder}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to show the page")
def test_a_browser_shows_hostile_names_as_text(tmp_path: Path) -> None:
    """One page for all: what cannot be timed, names with spaces, with tags, and like parts of the page."""
    names = [f"a b.{n}.w" for n in range(2)] + ["<a href='https://example.com'>x</a>", "{{plotly}}", "line\nend"]
    tensors = {name: np.eye(64, dtype=np.float32) * (1 + n) for n, name in enumerate(names)}
    codec.save_file(tensors | {"ints": np.eye(96, dtype=np.int32)}, tmp_path / "m.safetensors", plan={"*": "dense"})
    report(tmp_path / "m.safetensors", tmp_path / "page.html", machine=made_up())
    shown = dom(tmp_path / "page.html", tmp_path)
    body = shown[: shown.index('id="facts"')]
    assert 'data-ready="true"' in shown
    assert "a b.*.w x 2" in body
    assert "&lt;a href='https://example.com'&gt;x&lt;/a&gt;" in body
    assert 'href="https://example.com' not in body
    assert "{{plotly}}" in body
    assert "as fast (" in body


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to show the page")
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_shows_it(page: Path, tmp_path: Path, width: int) -> None:
    shown = dom(page, tmp_path, width)
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
