"""Every verb on small files: results on stdout, messages on stderr, statuses 0, 1 and 2, and never a traceback."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import facts, refused, run, write_plain

import codec
from codec.cli import VERBS, main
from codec.cli.output import Progress, as_json_text
from codec.cli.table import safe, table
from codec.units import counted, duration, percent, ratio, size

# inspect


def test_inspect_lists_all(packed, tensors):
    found = facts("inspect", packed)
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["w"]["shape"] == [64, 256]
    assert rows["w"]["dtype"] == "F32"
    assert rows["w"]["stored_as"] == "frame"
    assert rows["w"]["sparsity"] == 1 - np.count_nonzero(tensors["w"]) / tensors["w"].size
    assert rows["bias"]["stored_as"] == "dense"
    assert rows["bias"]["sparsity"] is None
    assert found["dense_nbytes"] == sum(a.nbytes for a in tensors.values())
    text = run("inspect", packed).stdout
    assert "64x256" in text
    assert "as itself" in text
    assert "4 tensors" in text
    assert "scalar" in text


def test_inspect_names(packed):
    assert [row["name"] for row in facts("inspect", packed, "bias", "w")["tensors"]] == ["bias", "w"]
    refused(run("inspect", packed, "bais"), 2, "no tensor 'bais' in this file; close: bias")


def test_inspect_reads_no_data(packed):
    whole = facts("inspect", packed)
    raw = bytearray(packed.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    raw[header:] = b"\xaa" * (len(raw) - header)
    packed.write_bytes(raw)
    assert facts("inspect", packed) == whole


def test_inspect_takes_plain_files_too(plain):
    assert {row["stored_as"] for row in facts("inspect", plain)["tensors"]} == {"dense"}


# Text from files

# Names that a file may have: a line end, terminal commands, and marks that change the direction of writing.
HOSTILE = ["two\nlines", "\x1b[31mred\x1b[2J", "\x9b2Jcleared", "gnp.\u202egnihton", "tab\tdel\x7f", "\ud7ff\u2028end"]


def printable(text):
    return all(character == "\n" or character.isprintable() for character in text)


@pytest.fixture
def hostile(tmp_path):
    weights = {name: np.eye(8, dtype=np.float32) for name in HOSTILE}
    return write_plain(tmp_path / "hostile.safetensors", weights, {"made\x1b[2J by": "\u202ehand"})


@pytest.mark.parametrize("verb", ["inspect", "stats", "breakeven"])
def test_names_cannot_act_on_the_terminal(hostile, verb):
    text = run(verb, hostile).stdout
    assert printable(text)
    assert "two\\nlines" in text
    assert "\\x1b[31mred" in text
    assert text.count("F32") == len(HOSTILE)
    result = run(verb, hostile, "--json")
    assert printable(result.stdout)
    assert [row["name"] for row in json.loads(result.stdout)["tensors"]] == HOSTILE


def test_errors_cannot_act_on_the_terminal(hostile):
    for verb in ("inspect", "stats"):
        result = run(verb, hostile, "\x1b[31mred\x1b[2K")
        refused(result, 2, "no tensor", "close: ")
        assert printable(result.stderr)
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["inspect", "stats", "breakeven"])
def test_long_names_do_not_break_tables(tmp_path, verb):
    names = ["short", "model/" + "very_" * 60 + "long/kernel"]
    path = write_plain(tmp_path / "long.safetensors", {name: np.eye(8, dtype=np.float32) for name in names})
    lines = run(verb, path).stdout.splitlines()[:4]
    columns = [line.index("F32") for line in lines[2:]]
    assert columns[0] == columns[1] < 70
    assert lines[3].startswith("model/very_")
    assert "..." in lines[3]
    assert "long/kernel" in lines[3]
    assert [row["name"] for row in facts(verb, path)["tensors"]] == names


def test_text_is_made_safe():
    assert safe("plain") == "plain"
    assert safe("\ud800\u2066\r") == "\\ud800\\u2066\\r"
    assert [len(safe("x" * n, 60)) for n in (59, 60, 61, 2000)] == [59, 60, 60, 60]
    assert safe("0123456789", 8) == "012...89"
    assert json.loads(as_json_text({"a": "\ud800\x7f\U000e0001\u00e9"})) == {"a": "\ud800\x7f\U000e0001\u00e9"}
    assert "\u00e9" in as_json_text(["\u00e9"])


# Faults


def test_faults_of_the_command_line(plain, tmp_path):
    refused(run("encode", tmp_path / "absent.safetensors"), 2, "does not exist")
    refused(run("encode", plain, "--layout", "bitmat"), 2, "bitmap")
    refused(run("encode", plain, "--threads", "0"), 2, "--threads")
    refused(run("encoed", plain), 2, "encoed")
    refused(run("encode", plain, "-o", ""), 2, "'' names no file")
    # What the library refuses because of an argument is a fault of the command too.
    refused(run("encode", plain, "--layout", "relative_index", "--param", "bits=99"), 2, "bits=99")
    refused(run("breakeven", "--shape", "4x4", "--dtype", "complex"), 2, "complex")
    refused(run("breakeven", "--shape", "4x4", "--plot", tmp_path / "plot.txt"), 2, "plot.txt", ".svg, .png or .pdf")
    refused(run("stats", plain, "bais"), 2, "no tensor 'bais' in this file; close: bias")


def test_a_missing_output_folder_is_found_before_any_work(plain, packed, tmp_path):
    target = tmp_path / "nowhere" / "out.safetensors"
    for arguments in (
        ("encode", plain, "-o", target),
        ("decode", packed, "-o", target),
        ("convert", packed, target, "--objective", "memory"),
        ("prune", plain, target, "--structure", "2:4"),
        ("breakeven", "--shape", "4x4", "--plot", tmp_path / "nowhere" / "plot.svg"),
    ):
        refused(run(*arguments), 2, "nowhere' does not exist: create it first")
    assert not target.parent.exists()


def test_ctrl_c(plain, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("codec.cli.show.configuration", interrupt)
    result = run("config")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_be_quiet_and_print_json(verb):
    options = {name for parameter in main.get_command(None, verb).params for name in parameter.opts}
    assert {"-q", "--quiet", "--json"} <= options


@pytest.mark.parametrize("verb", ["inspect", "stats", "breakeven"])
def test_quiet_leaves_only_the_result(plain, monkeypatch, verb):
    monkeypatch.setattr("codec.cli.output.QUIET_SECONDS", -1.0)
    monkeypatch.setattr("codec.cli.output._is_terminal", lambda: True)
    loud, quiet = run(verb, plain), run(verb, plain, "-q")
    assert loud.stdout == quiet.stdout != ""
    assert quiet.stderr == ""
    assert ("Counting" in loud.stderr) == (verb != "inspect")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "CODEC_KERNEL",
            "foo",
            "CODEC_KERNEL=foo is not a kernel: expected one of amx, avx512, avx2, scalar, amx-model",
        ),
        ("CODEC_NUM_THREADS", "foo", "CODEC_NUM_THREADS='foo'; expected an int from 1 to 64"),
        ("CODEC_NUM_THREADS", "0", "CODEC_NUM_THREADS=0; expected an int from 1 to 64"),
    ],
)
def test_a_wrong_variable_is_one_line(plain, variable, value, words):
    command = [sys.executable, "-c", "from codec.cli import main; main()"]
    options = {"cwd": os.sep, "capture_output": True, "text": True, "env": {**os.environ, variable: value}}
    for arguments in (["config"], ["inspect", str(plain)]):
        done = subprocess.run([*command, *arguments], **options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: " + words)
        assert done.stderr.count("\n") == 1
    for option in ("-h", "--version"):
        assert subprocess.run([*command, option], **options).returncode == 0


def test_a_wrong_kernel_is_refused_at_the_first_use():
    code = "import codec; codec.encode([[0.0, 1.0]])"
    environment = {**os.environ, "CODEC_KERNEL": "foo"}
    done = subprocess.run([sys.executable, "-c", code], cwd=os.sep, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("codec.errors.ArgumentError: CODEC_KERNEL=foo is not a kernel")


def test_version():
    assert run("--version").stdout.split()[-1] == codec.__version__


def test_faults_of_the_data(plain, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(plain.read_bytes()[:-1])
    for arguments in (
        ("inspect", broken),
        ("verify", broken),
        ("encode", broken),
        ("decode", broken, "-o", tmp_path / "out.safetensors"),
        ("demo", "--model", broken),
    ):
        refused(run(*arguments), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "model.safetensors"]


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_says_something(verb):
    result = run(*([verb] if verb else []), "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_list_of_verbs_is_not_cut_off():
    lines = {line.split()[0]: line for line in run("-h").stdout.split("Commands:")[1].splitlines() if line}
    assert lines.keys() == VERBS.keys()
    for verb in ("inspect", "stats", "breakeven", "config", "demo"):
        assert lines[verb].endswith(".")
        assert not lines[verb].endswith("...")


def test_codec_does_not_need_click():
    code = "import sys, codec; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=os.sep).returncode == 0


# config


def test_config(monkeypatch):
    found = facts("config")
    assert found["kernel"] in found["available"]
    assert set(found["available"]) <= set(found["built"])
    assert found["threads"] >= 1
    assert "numpy" in found["dependencies"]
    text = run("config").stdout
    assert found["kernel"] in text
    assert found["codec"] in text


# The parts


def test_numbers_have_units():
    assert [size(n) for n in (0, 999, 1000, 43_500_000, 999_600, 1_200_000_000_000)] == [
        "0 B", "999 B", "1.00 KB", "43.5 MB", "1.00 MB", "1200 GB",
    ]  # fmt: skip
    assert [duration(s) for s in (85.1e-6, 1.2e-3, 3, 0.9999)] == ["85.1 us", "1.20 ms", "3.00 s", "1.00 s"]
    assert ratio(6.5, 2) == "3.25x"
    assert ratio(1, 0) == "-"
    assert percent(0.8) == "80.00 %"
    assert counted(1, "tensor") == "1 tensor"
    assert counted(12345, "tensor") == "12,345 tensors"


def test_tables_line_up():
    assert table(["name", "size"], [["a", "1 B"]], total=["all of it", "1 B"]).splitlines() == [
        "name       size",
        "---------------",
        "a           1 B",
        "---------------",
        "all of it   1 B",
    ]


def test_a_bar_appears_only_on_a_terminal_and_only_for_long_work(monkeypatch, capsys):
    monkeypatch.setattr("codec.cli.output._is_terminal", lambda: True)
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("codec.cli.output.QUIET_SECONDS", -1.0)
    with Progress(10, "Working", quiet=True) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
        progress.advance(5)
    assert "Working" in capsys.readouterr().err
    monkeypatch.setattr("codec.cli.output._is_terminal", lambda: False)
    with Progress(10, "Working", quiet=False) as progress:
        progress.advance(5)
    assert capsys.readouterr().err == ""
