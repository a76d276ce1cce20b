"""The committed notebooks, looked at without running them; and that each fault is found."""

import ast
import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

_spec = importlib.util.spec_from_file_location("tools_notebooks", PROJECT / "tools" / "notebooks.py")
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

NOTEBOOKS = tool.find_notebooks()


def test_there_are_notebooks():
    assert NOTEBOOKS, "notebooks/ holds no notebook"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_notebook_is_fit_to_commit(path):
    assert tool.problems(tool.read(path), path.stat().st_size) == []


def test_each_chapter_begins_with_the_cell_for_colab_of_this_version():
    chapters = [path for path in NOTEBOOKS if tool.is_chapter(path)]
    assert len(chapters) > 10
    assert [path.name for path in chapters if not tool.has_colab_cell(tool.read(path))] == []


def test_over_four_fifths_of_all_cells_are_compared():
    cells = [cell for path in NOTEBOOKS for cell in tool.code_cells(tool.read(path))]
    compared = sum(map(tool.is_compared, cells))
    assert compared > tool.MIN_COMPARED * len(cells)


def hidden_functions_in_use(notebook):
    """The functions that cells tagged `hide-input` define and others call: what a reader runs must stand on the page."""
    hidden, used = set(), set()
    for cell in tool.code_cells(notebook):
        if "%pip" in tool.source(cell):
            continue
        nodes = list(ast.walk(ast.parse(tool.source(cell))))
        if "hide-input" in cell["metadata"].get("tags", []):
            hidden |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        else:
            used |= {node.id for node in nodes if isinstance(node, ast.Name)}
    return hidden & used


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_no_function_of_the_text_is_hidden(path):
    assert hidden_functions_in_use(tool.read(path)) == set()


def test_a_hidden_function_is_found():
    notebook = good_notebook()
    notebook["cells"][1]["source"] = ["def draw(): pass\n", "def by_hand(): pass"]
    notebook["cells"][1]["metadata"]["tags"] = ["hide-input"]
    notebook["cells"][2]["source"] = ["print(by_hand())"]
    assert hidden_functions_in_use(notebook) == {"by_hand"}


SLIDE = {"slideshow": {"slide_type": "slide"}}


def good_notebook():
    """A notebook with nothing to say against: an opening and six code cells."""
    opening = "# Title\nYou will be able to see. You need to know nothing. 2 minutes on a CPU."
    code = [
        {
            "cell_type": "code",
            "execution_count": number,
            "metadata": copy.deepcopy(SLIDE),
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["shape (2, 2)\n"]}],
            "source": ["print('shape', (2, 2))"],
        }
        for number in range(1, 7)
    ]
    return {
        "cells": [{"cell_type": "markdown", "metadata": copy.deepcopy(SLIDE), "source": [opening]}, *code],
        "metadata": copy.deepcopy(tool.METADATA),
        "nbformat": 4,
        "nbformat_minor": 5,
    }


PICTURE = {"image/png": "iVBORw0KGgo="}


@pytest.mark.parametrize(
    ("source", "tags", "data", "shows"),
    [
        ("plot.images(looked)", ["real-data"], PICTURE, True),
        ("plot.images(list(datasets.nuclei('val')))", [], PICTURE, True),
        ("samples = membranes('val')", [], {"text/html": '<img src="data:image/png;base64,iVBO">'}, True),
        ("samples = datasets.camvid('val', shrink=2)", [], {"image/svg+xml": "<svg/>"}, True),
        ("plot.images(looked)", ["real-data"], {"text/plain": "Not shown: the nuclei are not here."}, False),
        ("plot.images(cells('val'))", [], PICTURE, False),
        ("axis.plot(found['nuclei'])", [], PICTURE, False),
    ],
)
def test_an_image_of_a_downloaded_set_is_found(source, tags, data, shows):
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": [output]}
    assert tool.shows_real_data(cell) is shows


def test_no_committed_notebook_shows_an_image_of_a_downloaded_set():
    cells = [(path.name, cell) for path in NOTEBOOKS for cell in tool.code_cells(tool.read(path))]
    assert [name for name, cell in cells if tool.shows_real_data(cell)] == []
    readers = [cell for _, cell in cells if "real-data" in cell["metadata"].get("tags", [])]
    assert len(readers) >= 8  # the guard looks at something


def test_committed_outputs_are_made_where_no_real_data_is(tmp_path):
    """Whatever a machine has: what the notebooks run in finds no archive, and no server to get one from."""
    code = "from course_lib.datasets import archive; print([row['found'] for row in archive.status()])"
    environment = os.environ | tool.ENVIRONMENT
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(["absent"] * 3), done.stderr


def test_a_good_notebook_has_no_problem():
    assert tool.problems(good_notebook(), 1000) == []


def print_out(text):
    def change(notebook):
        notebook["cells"][1]["outputs"][0]["text"] = [text]

    return change


def show(mime, content):
    def change(notebook):
        output = {"output_type": "display_data", "data": {mime: content}, "metadata": {}}
        notebook["cells"][1]["outputs"] = [output]

    return change


def update(cell, **entries):
    return lambda notebook: notebook["cells"][cell].update(entries)


def tag_two(notebook):
    for cell in notebook["cells"][1:3]:
        cell["metadata"]["tags"] = ["nbval-ignore-output"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (update(2, execution_count=7), "not executed top to bottom"),
        (update(2, execution_count=None), "not executed top to bottom"),
        (update(1, outputs=[{"output_type": "error", "ename": "KeyError"}]), "an error output (KeyError)"),
        (update(1, outputs=[{"output_type": "stream", "name": "stderr", "text": "x"}]), "text on stderr"),
        (print_out("saved to /" + "opt/course/run/weights.h5"), "a path of the machine"),
        (print_out("saved to C:\\Users"), "a path of the machine"),
        (show("text/html", "<b>trained on 2026-03-01</b>"), "a date"),
        (print_out("at 12:30:05"), "a time of day"),
        (print_out("<Layer at 0x7f3a2b10>"), "an address in memory"),
        (print_out("UserWarning: look out"), "a warning"),
        (update(1, source=["x = 1\n"] * 41), "41 lines; at most 40"),
        (update(1, source=["plt.plot([1, 2]);"]), "assign the value to _"),
        (tag_two, "nbval compares 67% of the code cells"),
        (update(3, metadata={}), "cell 4: no slide type"),
        (update(3, metadata={**SLIDE, "execution": {}}), "cell 4: metadata of one run"),
        (update(0, source="# Title\nYou need to know nothing. 2 minutes."), "be able to do"),
        (update(0, source="# Title\nYou will be able to see. 2 minutes."), "know first"),
        (update(0, source="# Title\nYou will be able to see. You need to know nothing."), "how many minutes"),
        (lambda notebook: notebook["metadata"].update(widgets={}), "those of one machine"),
    ],
)
def test_each_fault_is_found(change, message):
    notebook = good_notebook()
    change(notebook)
    found = tool.problems(notebook, 1000)
    assert len(found) == 1 and message in found[0], found


def test_cleaning_takes_tensorflow_s_start_up_notes_and_leaves_other_errors():
    def stderr(text):
        return {"output_type": "stream", "name": "stderr", "text": text}

    notebook = good_notebook()
    notes = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1795497777.365280   19703 port.cc:153] oneDNN custom operations are on.\n"
    )
    notebook["cells"][1]["outputs"] += [stderr(notes), stderr(notes + "something else\n")]
    assert tool.clean(notebook)["cells"][1]["outputs"][-1]["text"] == "something else\n"
    assert len(notebook["cells"][1]["outputs"]) == len(good_notebook()["cells"][1]["outputs"]) + 1


def test_a_large_notebook_is_found():
    assert tool.problems(good_notebook(), 6_000_001) == ["6.0 MB; smaller or fewer figures, at most 6 MB"]


def test_cleaning_takes_what_changes_from_run_to_run_and_nothing_else():
    expected = good_notebook()
    notebook = good_notebook()
    notebook["metadata"]["language_info"]["version"] = "3.11.7"
    notebook["metadata"]["widgets"] = {"state": {}}
    notebook["cells"][1]["metadata"]["execution"] = {"iopub.status.busy": "x"}
    show("text/plain", "interactive(IntSlider)")(notebook)
    show("text/plain", "interactive(IntSlider)")(expected)
    notebook["cells"][1]["outputs"][0]["data"][tool.WIDGET_VIEW] = {"model_id": "abc"}
    assert tool.clean(notebook) == expected


def test_a_notebook_is_run_in_its_folder_and_written_whole(tmp_path):
    path = tmp_path / "small.ipynb"
    notebook = good_notebook()
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
    notebook["cells"][1]["source"] = (
        "import os; print(os.path.exists('small.ipynb'), os.environ['KERAS_BACKEND'], os.environ['COURSE_TRAIN'])"
    )
    own = dict(os.environ)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert tool.main(["run", str(path)]) == 0
    outputs = [cell["outputs"][0]["text"] for cell in tool.code_cells(tool.read(path))]
    assert outputs == ["True tensorflow 0\n"] + ["shape (2, 2)\n"] * 5
    assert [file.name for file in tmp_path.iterdir()] == ["small.ipynb"]
    # The notebooks' setting is the kernel's alone: tests that come later in this process keep their backend.
    assert dict(os.environ) == own

    notebook["cells"][2]["source"] = "1 / 0"
    before = json.dumps(notebook)
    path.write_text(before, encoding="utf-8")
    assert tool.main(["run", str(path)]) == 1
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_not_only_one_notebook(tmp_path):
    """A terminal sends the signal to the whole group, the kernel too; no further notebook may begin."""
    started = tmp_path / "started"
    code = f"import time\nopen({str(started)!r}, 'a').write('x')\ntime.sleep(60)"
    notebook = good_notebook()
    notebook["cells"][1]["source"] = [code]
    paths = [tmp_path / "one.ipynb", tmp_path / "two.ipynb"]
    for path in paths:
        path.write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, str(PROJECT / "tools" / "notebooks.py"), "run", *map(str, paths)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not (started.exists() and started.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and "Stopped; the notebook that was running is as it was" in said
    assert started.read_text() == "x" and "two.ipynb" not in said and "Traceback" not in said
    assert all(json.loads(path.read_text(encoding="utf-8")) == notebook for path in paths)
