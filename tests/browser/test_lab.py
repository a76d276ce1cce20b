"""JupyterLab as a learner has it: started as `make lab` starts it, chapter 01 run in it, its widget, quiz and cards used.

The notebooks are copies in a folder of the test's own, without outputs, so that all that is seen was made here; settings,
caches and the list of running servers lie in that folder as well. Where something does not come, the message names a
picture of the page as it was.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_lib.teaching import questions

PROJECT = Path(__file__).resolve().parents[2]
FIRST, CHAPTER = "00_start_here.ipynb", "01_detection_vs_segmentation.ipynb"
SECONDS = 180  # for what the page does at once; two cores may be busy with something else
SECONDS_TO_RUN = 600  # for all cells of the chapter
LEFT, RIGHT, ENTER = "\ue012", "\ue014", "\ue007"  # keys, as selenium names them

_spec = importlib.util.spec_from_file_location("tools_notebooks", PROJECT / "tools" / "notebooks.py")
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

# The notebook that is shown; others lie behind it.
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"


class Lab:
    """A running JupyterLab and the browser that looks at it.

    Attributes:
        browser: the driver.
        folder: of this run: `notebooks/` for the copies, `pictures/` for what went wrong.
        home: where the server believes its user's home to be.
    """

    def __init__(self, browser, folder: Path):
        self.browser, self.folder, self.home = browser, folder, folder / "home"
        self.notebooks = folder / "notebooks"

    def all(self, selector: str) -> list:
        """What the page has of a CSS selector."""
        return self.browser.find_elements("css selector", selector)

    def shown(self, selector: str) -> list:
        return [element for element in self.all(selector) if element.is_displayed()]

    def ask(self, script: str, *arguments):
        """What a piece of JavaScript returns."""
        return self.browser.execute_script(script, *arguments)

    def until(self, what: str, condition, seconds: float = SECONDS):
        """Wait until a condition is true of the page and return what it gave.

        Args:
            what: what is waited for, fit to follow "no"; for the message.
            condition: a function; what it raises because the page has just changed counts as not yet.
            seconds: how long to wait.
        """
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        last = None
        while True:
            try:
                if found := condition():
                    return found
            except WebDriverException as error:
                last = error
            if time.monotonic() > end:
                self.fail(f"no {what} after {seconds:.0f} seconds" + (f" ({last.msg})" if last else ""))
            time.sleep(0.2)

    def fail(self, message: str) -> None:
        """Fail, with a picture of the page."""
        picture = self.picture(re.sub(r"\W+", "-", message)[:60])
        pytest.fail(f"{message}; the page: {picture}", pytrace=False)

    def picture(self, name: str) -> Path:
        """Save what the browser shows, and return where."""
        path = self.folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        self.browser.save_screenshot(str(path))
        return path

    def look_at(self, element) -> None:
        """Scroll to an element, as one does before using it."""
        self.ask("arguments[0].scrollIntoView({block: 'center'})", element)

    def click(self, selector: str) -> None:
        """Click what is displayed of a selector, as soon as it can be clicked."""

        def clicked():
            found = self.shown(selector)
            if found:
                found[0].click()
            return bool(found)

        self.until(f"{selector} that can be clicked", clicked)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_lab_command(arguments: str) -> str:
    """The line that `make lab` runs, with this Python, read from the Makefile by make itself."""
    if not shutil.which("make"):
        pytest.skip("no make, whose `lab` is tested here")
    own = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    said = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "lab", f"PY={sys.executable}", f"LAB_ARGS={arguments}"],
        cwd=PROJECT,
        env=own,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in said.stdout.splitlines() if "-m jupyterlab" in line]
    assert len(lines) == 1, said.stdout
    return lines[0]


def environment_of(home: Path) -> dict[str, str]:
    """A learner's environment on a new machine: nobody's settings, no real data, and no net to fetch it from."""
    ours = ("JUPYTER", "JPY_", "XDG_", "COURSE_", "MPL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "running"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "COURSE_MIRROR": "https://localhost:9",  # nothing answers there, at once
        **tool.ENVIRONMENT,
    }


def without_outputs(notebook: dict) -> dict:
    """The notebook as if nobody had run it; changed in place and returned."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """JupyterLab, started by the command of `make lab`, and its page opened as the command opens it."""
    found = Lab(browser, tmp_path_factory.mktemp("lab"))
    found.home.mkdir()
    found.notebooks.mkdir()
    shutil.copy(PROJECT / "notebooks" / FIRST, found.notebooks)
    chapter = without_outputs(tool.read(PROJECT / "notebooks" / CHAPTER))
    tool.write(chapter, found.notebooks / CHAPTER)

    arguments = (
        f"--no-browser --port {free_port()} --ServerApp.port_retries=0 --IdentityProvider.token=browser-test"
    )
    log = found.folder / "server.log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            ["sh", "-c", f"exec env {make_lab_command(arguments)}"],
            cwd=found.folder,
            env=environment_of(found.home),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        browser.get(page_to_open(found.home, server, log).as_uri())
        yield found
    finally:
        server.send_signal(signal.SIGTERM)  # it shuts its kernels down
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(autouse=True)
def picture_of_a_failure(request, lab):
    """After a test that failed, a picture of the page and where it lies, also where a plain assert failed."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        print(f"The page after {request.node.name}: {lab.picture(request.node.name)}")


def page_to_open(home: Path, server: subprocess.Popen, log: Path) -> Path:
    """The page that `make lab` hands to the learner's browser, as soon as it is there; it leads to the server."""
    end = time.monotonic() + SECONDS
    while True:
        if found := list((home / "running").glob("jpserver-file-to-run-*-open.html")):
            return found[0]
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(f"JupyterLab did not start:\n{log.read_text()}", pytrace=False)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def first(lab):
    """The page that comes up, with notebook 00 in it."""
    lab.until("notebook in the page", lambda: lab.shown(f"{PANEL} .jp-Cell"))
    return lab


@pytest.fixture(scope="module")
def chapter(first):
    """Chapter 01, opened from the list of files, all its cells run and the notebook saved."""
    lab = first
    from selenium.webdriver import ActionChains

    entry = f".jp-DirListing-item[title^='Name: {CHAPTER}']"
    lab.until(f"{CHAPTER} in the list of files", lambda: lab.shown(entry))
    ActionChains(lab.browser).double_click(lab.shown(entry)[0]).perform()
    lab.until(
        f"{CHAPTER} in front", lambda: prompts(lab) and CHAPTER in lab.shown(".jp-mod-current")[-1].text
    )

    count = len(code_cells(lab))
    open_menu_and_choose(lab, "Run", "runmenu:run-all")

    def all_run():
        if wrong := tracebacks(lab):
            lab.fail(f"a cell of {CHAPTER} stopped: {wrong[0][-600:]}")
        if "| Idle" not in lab.shown("#jp-main-statusbar")[0].text:
            return False
        shown = prompts(lab)  # a folded cell shows none
        return len(shown) == count and all(
            one in (None, "", f"[{n}]:") for n, one in enumerate(shown, start=1)
        )

    lab.until(f"{count} cells with their numbers", all_run, SECONDS_TO_RUN)
    lab.click(f"{PANEL} jp-button[data-command='docmanager:save']")
    lab.until("saved notebook", lambda: not lab.all(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty"))
    return lab


def prompts(lab: Lab) -> list[str]:
    """What stands before the code cells of the notebook in front, such as "[3]:" and "[*]:"; `None` before a folded one."""
    return lab.ask(
        f"""return [...document.querySelectorAll("{PANEL} .jp-CodeCell")]
        .map(cell => cell.querySelector(".jp-InputPrompt")?.textContent)"""
    )


def tracebacks(lab: Lab) -> list[str]:
    """What cells that stopped show; JupyterLab draws it as it draws other text on stderr."""
    shown = lab.ask(
        f"""return [...document.querySelectorAll("{PANEL} [data-mime-type='application/vnd.jupyter.stderr']")]
        .map(one => one.textContent)"""
    )
    return [text for text in shown if "Traceback (most recent call last)" in text]


def code_cells(lab: Lab) -> list[dict]:
    """The chapter's code cells as its file now holds them."""
    return [cell for cell in tool.read(lab.notebooks / CHAPTER)["cells"] if cell["cell_type"] == "code"]


def open_menu_and_choose(lab: Lab, menu: str, command: str) -> None:
    """Choose from the menu bar, by mouse."""

    def opened():
        if not lab.shown(".lm-Menu"):  # a second click would close it
            [item] = [item for item in lab.shown(".lm-MenuBar-item") if item.text == menu]
            item.click()
        return lab.shown(".lm-Menu")

    lab.until(f"menu {menu}", opened)
    lab.click(f".lm-Menu-item[data-command='{command}']")


# The first page


def test_make_lab_opens_the_first_notebook(first):
    lab = first
    assert lab.browser.current_url.partition("?")[0].endswith(f"/lab/tree/{FIRST}")
    lab.until(
        "heading of notebook 00",
        lambda: "0. Start here" in [e.text.strip("¶") for e in lab.shown(f"{PANEL} h1")],
    )
    # Its committed numbers and pictures are there before anything is run.
    lab.until("committed number before a cell", lambda: "[2]:" in prompts(lab))  # the first cell is folded
    lab.until("committed picture", lambda: lab.all(f"{PANEL} .jp-OutputArea img"))
    assert broken_pictures(lab) == []
    lab.until("kernel at rest", lambda: "| Idle" in lab.shown("#jp-main-statusbar")[0].text)
    assert tracebacks(lab) == []


def broken_pictures(lab: Lab) -> list[str]:
    """The beginnings of the addresses of all pictures in front that the browser could not read."""
    return lab.until(
        "end of loading pictures",
        lambda: lab.ask(
            f"""const all = [...document.querySelectorAll("{PANEL} img")];
            if (!all.every(one => one.complete)) return null;
            return [all.filter(one => !one.naturalWidth).map(one => one.src.slice(0, 60))]"""
        ),
    )[0]


# Chapter 01


def test_all_cells_of_the_chapter_run_and_none_shows_an_error(chapter):
    lab = chapter
    cells = code_cells(lab)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"] == []
    # What was run is the committed chapter, and each cell that shows something there shows something here.
    committed = [
        cell for cell in tool.read(PROJECT / "notebooks" / CHAPTER)["cells"] if cell["cell_type"] == "code"
    ]
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in committed]
    silent = [
        cell["execution_count"]
        for cell, old in zip(cells, committed)
        if old["outputs"] and not cell["outputs"]
    ]
    assert silent == []

    # And in the page: a script that fails and a widget that cannot be drawn say so in words.
    text = lab.ask(
        f"""return [...document.querySelectorAll("{PANEL} .jp-OutputArea")].map(one => one.textContent).join(" ")"""
    )
    for words in ("Javascript Error", "Error displaying widget", "Loading widget..."):
        assert words not in text
    assert tracebacks(lab) == []
    assert broken_pictures(lab) == []
    lab.picture("chapter")


def test_a_slider_moved_by_keyboard_changes_picture_and_numbers(chapter):
    """Box b's right edge goes a square to the right: IoU is counted here anew, square by square."""
    lab = chapter
    handles = lab.until("eight handles of the two boxes", lambda: boxes_handles(lab))
    right_edge = handles["b: left, right"][1]
    lab.look_at(right_edge)

    before = seen_of_the_widget(lab)
    assert iou_in_words(lab) in before["words"]
    right_edge.send_keys(RIGHT)
    after = lab.until("change of picture and words", lambda: changed(lab, before))
    assert iou_in_words(lab) in after["words"] and iou_in_words(lab) not in before["words"]
    assert after["width"] == before["width"] > 300
    lab.picture("widget")

    right_edge.send_keys(LEFT)
    again = lab.until("change back", lambda: changed(lab, after))
    assert again == before


def text_of(element) -> str:
    """An element's text, also where JupyterLab does not draw it because it is far from what is seen."""
    return element.get_attribute("textContent")


def boxes_handles(lab: Lab) -> dict[str, list]:
    """The handles of each slider by the slider's label; empty until all are there."""
    found = {
        text_of(slider.find_element("css selector", "label")): slider.find_elements(
            "css selector", "[role=slider]"
        )
        for slider in lab.all(f"{PANEL} .widget-slider")
    }
    return found if set(map(len, found.values())) == {2} and len(found) == 4 else {}


def seen_of_the_widget(lab: Lab) -> dict:
    """What the widget shows: its words, and its picture's address and width as drawn."""
    return lab.ask(
        f"""const words = document.querySelector("{PANEL} [role=status]");
        const picture = words.closest(".jp-OutputArea-output").querySelector("img");
        return {{words: words.textContent, picture: picture.src, width: picture.naturalWidth && picture.width}}"""
    )


def changed(lab: Lab, before: dict) -> dict | None:
    """What the widget shows, once both its picture and its words are other ones."""
    now = seen_of_the_widget(lab)
    return now if now["width"] and all(now[part] != before[part] for part in ("words", "picture")) else None


def iou_in_words(lab: Lab) -> str:
    """The sum that the widget should write out for the boxes that its handles say, counted square by square."""

    def squares(name: str) -> set:
        x1, x2 = (
            int(float(handle.get_attribute("aria-valuenow"))) for handle in handles[f"{name}: left, right"]
        )
        y1, y2 = (
            int(float(handle.get_attribute("aria-valuenow"))) for handle in handles[f"{name}: top, bottom"]
        )
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    handles = boxes_handles(lab)
    a, b = squares("a"), squares("b")
    return f"IoU = {len(a & b)} / {len(a | b)} = {len(a & b) / len(a | b):.3f}"


QUIZ, CARDS = questions.load().quiz[CHAPTER[:2]], questions.load().cards[CHAPTER[:2]]


def test_a_quiz_says_what_is_wrong_with_an_answer_and_why_another_is_right(chapter):
    lab = chapter
    lab.until(f"{len(QUIZ)} questions", lambda: len(lab.all(f"{PANEL} .Quiz")) == len(QUIZ))
    for question, element in zip(QUIZ, lab.all(f"{PANEL} .Quiz")):
        assert question.question in text_of(element)

    place = next(k for k, question in enumerate(QUIZ) if not question.is_number)
    asked = lab.all(f"{PANEL} .Quiz")[place]
    for right in (False, True):
        choice = next(choice for choice in QUIZ[place].choices if choice.right == right)
        [button] = [
            e for e in asked.find_elements("css selector", ".MCButton") if text_of(e) == choice.answer
        ]
        lab.look_at(button)
        button.click()
        wait_for_feedback(lab, asked, choice.because, right)
        at_rest(lab, asked)
        lab.picture(f"quiz-{'right' if right else 'wrong'}")


def test_a_quiz_takes_a_number(chapter):
    lab = chapter
    place = next(k for k, question in enumerate(QUIZ) if question.is_number and len(question.choices) > 1)
    lab.until("question for a number", lambda: len(lab.all(f"{PANEL} .Quiz")) > place)
    asked = lab.all(f"{PANEL} .Quiz")[place]
    field = asked.find_element("css selector", "input")
    lab.look_at(field)
    right, wrong = QUIZ[place].choices[:2]
    for choice in (wrong, right):
        field.send_keys(choice.answer, ENTER)
        wait_for_feedback(lab, asked, choice.because, choice.right)


def at_rest(lab: Lab, element) -> None:
    """Wait until colours and cards have stopped moving."""
    moving = "return arguments[0].getAnimations({subtree: true}).every(one => one.playState === 'finished')"
    lab.until("end of moving", lambda: lab.ask(moving, element))


def wait_for_feedback(lab: Lab, asked, because: str, right: bool) -> None:
    def said():
        feedback = asked.find_element("css selector", ".Feedback")
        return feedback.is_displayed() and (feedback.text, feedback.get_attribute("class").split()[-1]) == (
            because,
            "correct" if right else "incorrect",
        )

    lab.until(f"feedback {because!r}", said)


def test_a_card_turns(chapter):
    lab = chapter
    [card] = lab.until("card", lambda: lab.all(f"{PANEL} .flip-container"))
    lab.look_at(card)

    def up() -> str:
        """What lies on top in the middle of the card: a side that is turned away cannot be hit there."""
        return lab.ask(
            """const at = arguments[0].getBoundingClientRect();
            return document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2)?.textContent || "";""",
            card,
        )

    top = CARDS[0]
    lab.until("front of the first card", lambda: top.front in up())
    card.click()
    lab.until("back of the first card", lambda: top.back in up())
    assert f"Claim {top.result}, measured: " in up()
    at_rest(lab, card)
    lab.picture("card")
    card.send_keys(" ")  # and back, by keyboard
    lab.until("front of the first card again", lambda: top.front in up())


# The page as a whole


def test_the_page_reports_no_error(chapter):
    # JupyterLab's own notes are warnings at most, so that nothing has to be left out here.
    assert [
        entry["message"] for entry in chapter.browser.get_log("browser") if entry["level"] == "SEVERE"
    ] == []


def test_the_page_asks_no_host_but_this_one(chapter):
    """A classroom without the net: all that the page loads comes from the learner's own machine."""
    asked = set()
    for entry in chapter.browser.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            asked.add(event["params"]["request"]["url"])
    assert any("/static/lab/" in address for address in asked)
    # `chrome-untrusted:` is inside the browser, as `chrome:` is: its own first page asks for it in some versions.
    elsewhere = [
        address
        for address in asked
        if not re.match(
            r"(file|data|blob|chrome|chrome-untrusted|about):|https?://(localhost|127\.0\.0\.1)[:/]", address
        )
    ]
    assert elsewhere == []
