"""The slides of every chapter in a Chromium without a network: each fits, can be read, and shows what it should."""

import base64
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from course_lib.teaching import slides
from course_lib.teaching.slides import composed

# What is wrong with the slide that is shown, one sentence each. Sizes are in pixels of the window, 1280 x 720.
LOOK = """
const slide = document.querySelector(".slide.current"), problems = [];
const shown = (element) => element.getClientRects().length && getComputedStyle(element).visibility !== "hidden";
const start = (text) => text.trim().slice(0, 40);
const name = (element) => `<${element.tagName.toLowerCase()}> ${start(element.textContent || element.alt || "")}`;
const foot = document.querySelector(".foot").getBoundingClientRect().top;
const parts = [...slide.querySelectorAll(".title, .body, .body *")].filter(shown);
for (const part of parts) {
  const { left, top, right, bottom } = part.getBoundingClientRect();
  if (left < 0 || top < 0 || right > innerWidth + 1 || bottom > foot + 1)
    problems.push(`${name(part)} is outside: ${[left, top, right, bottom].map(Math.round)}`);
  if (part.matches("pre, table, .block, .column") && part.scrollWidth > part.clientWidth + 1)
    problems.push(`${name(part)} is ${part.scrollWidth} wide in a box of ${part.clientWidth}`);
}
if (slide.scrollHeight > innerHeight) problems.push(`it is ${slide.scrollHeight} high`);
const blocks = parts.filter((part) => part.matches(".title, .block"));
blocks.map((block) => [block, block.getBoundingClientRect()]).forEach(([block, one], index) => {
  for (const other of blocks.slice(index + 1).map((after) => after.getBoundingClientRect())) {
    const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (width > 1 && height > 1) problems.push(`${name(block)} lies over another block`);
  }
});
const images = [...slide.querySelectorAll(".body img")].filter(shown);
for (const image of images) {
  if (!image.complete || !image.naturalWidth) problems.push(`an image did not load: ${image.alt}`);
  else if (image.getBoundingClientRect().width < 0.5 * image.getAttribute("width"))
    problems.push(`an image is shown smaller than 0.5 of its size: ${image.alt}`);
  if (!image.alt) problems.push("an image has no text that stands for it");
}
const words = parts.filter((part) => !part.matches(".continued")).map((part) => part.innerText || "").join("").trim();
if (!words && !images.length) problems.push("it is empty");
const walker = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode, holder = text.parentElement;
  if (!text.data.trim() || !shown(holder)) continue;
  // A formula's indices are smaller than its letters: its own size counts.
  const size = parseFloat(getComputedStyle(holder.closest("math") || holder).fontSize);
  const code = holder.closest("pre, code"), talk = slide.matches(".talk:not(.references-slide)");
  const smallest = talk ? (code ? 24 : holder.closest("label, td, th") ? 22 : 28) : code ? 12 : 16;
  if (size < smallest) problems.push(`text of ${size.toFixed(1)} pixels, at least ${smallest}: ${start(text.data)}`);
}
if (slide.querySelector(".ahead")) problems.push("a step has not appeared");
const number = [...document.querySelectorAll(".slide")].indexOf(slide) + 1;
return { number, cells: slide.dataset.cells, problems: [...new Set(problems)] };
"""


def open_deck(browser, path):
    """Open a file of slides, with what was logged before forgotten; the number of its slides."""
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    return len(browser.find_elements(By.CSS_SELECTOR, ".slide"))


def press(browser, *keys):
    browser.find_element(By.TAG_NAME, "body").send_keys(*keys)


def place(browser):
    return browser.find_element(By.ID, "place").text


def look_at_all(browser, path):
    """Go through all slides by keyboard; what is wrong with each, those with nothing wrong left out."""
    count = open_deck(browser, path)
    found, seen = {}, []
    press(browser, Keys.HOME)
    for number in range(count):
        press(browser, Keys.ARROW_DOWN if number else Keys.ARROW_UP)
        if not number:  # all steps of the first slide
            browser.execute_script("location.hash = '#1'")
            while browser.find_elements(By.CSS_SELECTOR, ".slide.current .ahead"):
                press(browser, Keys.ARROW_RIGHT)
        report = browser.execute_script(LOOK)
        seen.append(report["number"])
        if report["problems"]:
            found[f"slide {report['number']}, cells {report['cells']}"] = report["problems"]
    assert seen == list(range(1, count + 1)) and count
    return found


def asked_for(browser):
    """The addresses that the page asked for, its own file and what lies inside it left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not re.match(r"file:///.*\.html|data:|about:", url)]


@pytest.mark.parametrize("notebook", slides.chapters(), ids=lambda path: path.name[:2])
def test_every_slide_of_a_chapter_fits_and_can_be_read_without_a_network(browser, notebook, tmp_path):
    path = tmp_path / f"{notebook.stem}.html"
    slides.write(slides.read(notebook), path)
    problems = look_at_all(browser, path)
    assert not problems, (
        "choose other slide types for these cells (subslide to begin a new slide, skip, notes; "
        f"the tag {slides.HIDE_CODE} for a figure's code): {json.dumps(problems, indent=1, ensure_ascii=False)}"
    )
    assert browser.get_log("browser") == []
    assert asked_for(browser) == []


@pytest.mark.parametrize("chapter", composed.sources())
def test_every_slide_of_a_lecture_can_be_read_from_the_last_row(browser, chapter, tmp_path):
    path = tmp_path / f"{chapter}.html"
    slides.write(composed.read(composed.sources()[chapter]), path)
    problems = look_at_all(browser, path)
    assert not problems, json.dumps(problems, indent=1, ensure_ascii=False)
    assert browser.get_log("browser") == [] and asked_for(browser) == []


def test_a_widget_in_a_lecture_follows_the_keys_without_a_kernel_and_a_network(browser, tmp_path):
    source = tmp_path / "slides.md"
    note = "\n@notes\nSay.\n"
    source.write_text(
        f"# A\n@widget threshold threshold{note}---\n# B\n@widget boxes b_x b_y{note}---\n# C\n"
        f"@widget roi_align columns rows{note}",
        encoding="utf-8",
    )
    slides.write(composed.read(source, []), tmp_path / "deck.html")
    open_deck(browser, tmp_path / "deck.html")

    def seen():
        images = browser.find_elements(By.CSS_SELECTOR, ".current .frames img")
        return [image.get_attribute("data-at") for image in images if image.is_displayed()]

    def move(slider, *keys):
        browser.find_elements(By.CSS_SELECTOR, ".current .frames input")[slider].send_keys(*keys)
        return seen()

    assert seen() == ["0"]
    assert move(0, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT) == ["2"] and place(browser) == "1 / 3"
    for number in (2, 3):
        press(browser, str(number), Keys.ENTER)
        assert seen() == ["0 0"]
        assert move(1, Keys.ARROW_RIGHT) == ["0 1"] and move(0, Keys.END, Keys.ARROW_LEFT) == ["6 1"]
        assert move(1, Keys.HOME) == ["6 0"] and place(browser) == f"{number} / 3"
    assert not look_at_all(browser, tmp_path / "deck.html")
    assert browser.get_log("browser") == [] and asked_for(browser) == []


# That each fault is found


def deck_of(tmp_path, *blocks, title="A title"):
    """A file with one slide."""
    slide = slides.Slide(
        title, True, False, "", [slides.Block(kind, text, 1) for kind, text in blocks], cells=[1]
    )
    path = tmp_path / "deck.html"
    slides.write(slides.Deck("deck", [slide], []), path)
    return path


def drawing(width, height):
    """An empty image, inside an address."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"/>'
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([("text", f"<p>{'Many words. ' * 900}</p>")], r"text of \d+\.\d pixels, at least 16"),
        ([("code", f"<pre>{'line' + chr(10)}</pre>" * 90)], r"text of \d+\.\d pixels, at least 12"),
        ([("text", f"<table><tr>{'<td>Schadenfreude</td>' * 30}</tr></table>")], "is outside|wide in a box"),
        ([("text", '<p style="margin-top: 700px">low</p>')], r"is outside|text of"),
        ([("text", '<p style="position: relative; left: 900px">aside, and further aside</p>')], "is outside"),
        ([("text", "<p>one</p>"), ("text", '<p style="margin-top: -60px">two</p>')], "lies over|is outside"),
        (
            [("image", '<img src="data:image/png;base64,AAAA" width="90" height="90" alt="a">')],
            "did not load",
        ),
        (
            [("image", f'<img src="{drawing(900, 4000)}" width="900" height="4000" alt="tall">')],
            "smaller than 0.5",
        ),
        (
            [("image", f'<img src="{drawing(9, 9)}" width="9" height="9" alt="">')],
            "no text that stands for it",
        ),
        ([("text", '<p style="font-size: 15px">small</p>')], "text of 15.0 pixels, at least 16"),
    ],
    ids=["words", "code", "table", "low", "aside", "over", "broken", "tall", "alt", "small"],
)
def test_a_fault_on_a_slide_is_found(browser, tmp_path, blocks, problem):
    (found,) = look_at_all(browser, deck_of(tmp_path, *blocks)).values()
    assert any(re.search(problem, one) for one in found), found


def test_an_empty_slide_is_found(browser, tmp_path):
    (found,) = look_at_all(browser, deck_of(tmp_path, title="")).values()
    assert found == ["it is empty"]


def test_a_good_slide_has_no_fault(browser, tmp_path):
    image = f'<img src="{drawing(90, 60)}" width="90" height="60" alt="a blank">'
    blocks = [("text", "<p>Some words.</p>"), ("image", image)]
    assert look_at_all(browser, deck_of(tmp_path, *blocks)) == {}
    assert browser.get_log("browser") == [] and asked_for(browser) == []


def test_an_error_and_a_request_are_found(browser, tmp_path):
    path = deck_of(tmp_path, ("text", '<p>words</p><img src="http://example.com/a.png" alt="a">'))
    look_at_all(browser, path)
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
    # The page's own policy stops it before it is asked for; without the policy it would be.
    path.write_text(re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    open_deck(browser, path)
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert asked_for(browser) == ["http://example.com/a.png"]


# The keys


def typed(kind, source, slide_type, **more):
    """A cell with a slide type."""
    cell = new_markdown_cell(source) if kind == "markdown" else new_code_cell(source, **more)
    cell["metadata"]["slideshow"] = {"slide_type": slide_type}
    return cell


@pytest.fixture
def small_deck(tmp_path):
    """Four slides in two sections; the first has two steps, notes, and code that it does not show."""
    plot = typed(
        "code", "secret = 1", "fragment", outputs=[new_output("stream", name="stdout", text="the answer")]
    )
    plot["metadata"]["tags"] = [slides.HIDE_CODE]
    cells = [
        typed("markdown", "# Opening\n\nFirst words.", "slide"),
        plot,
        typed("markdown", "Last words.", "fragment"),
        typed("markdown", "*For the lecturer:* ask the room.", "notes"),
        typed("markdown", "## More\n\nWords.", "subslide"),
        typed("markdown", "## Section two\n\nWords.", "slide"),
        typed("markdown", "## The end\n\n$a^2$", "subslide"),
    ]
    notebook, path = tmp_path / "small.ipynb", tmp_path / "small.html"
    nbformat.write(new_notebook(cells=cells), notebook)
    slides.write(slides.read(notebook), path)
    return path


def visible(browser):
    """The words on the slide that is shown."""
    return browser.find_element(By.CSS_SELECTOR, ".slide.current").text


def test_the_keys_lead_through_steps_slides_and_sections(browser, small_deck):
    assert open_deck(browser, small_deck) == 4
    assert "First words" in visible(browser) and "the answer" not in visible(browser)
    press(browser, Keys.ARROW_RIGHT)
    assert "the answer" in visible(browser) and "Last words" not in visible(browser)
    press(browser, Keys.SPACE)
    assert "Last words" in visible(browser) and place(browser) == "1 / 4"
    press(browser, Keys.PAGE_DOWN)
    assert place(browser) == "2 / 4" and "More" in visible(browser)
    press(browser, Keys.ARROW_LEFT)
    assert place(browser) == "1 / 4" and "Last words" in visible(browser)
    press(browser, Keys.ARROW_LEFT)
    assert "Last words" not in visible(browser)
    press(browser, "]")
    assert place(browser) == "3 / 4"
    press(browser, "[")
    assert place(browser) == "1 / 4"
    press(browser, Keys.END)
    assert place(browser) == "4 / 4"
    press(browser, Keys.ARROW_RIGHT)
    assert place(browser) == "4 / 4"
    press(browser, Keys.HOME)
    press(browser, "3", Keys.ENTER)
    assert place(browser) == "3 / 4"
    WebDriverWait(browser, 5).until(lambda browser: browser.current_url.endswith("#3"))
    assert browser.get_log("browser") == []


def test_sheets_show_the_code_the_list_and_the_keys(browser, small_deck):
    open_deck(browser, small_deck)
    assert "secret" not in visible(browser)
    press(browser, "c")
    assert "secret = 1" in browser.find_element(By.CSS_SELECTOR, ".sheet").text
    press(browser, "c")
    assert not browser.find_elements(By.CSS_SELECTOR, ".sheet")
    press(browser, "o")
    browser.find_elements(By.CSS_SELECTOR, ".sheet button")[2].click()
    assert place(browser) == "3 / 4" and not browser.find_elements(By.CSS_SELECTOR, ".sheet")
    press(browser, "?")
    assert "speaker notes" in browser.find_element(By.CSS_SELECTOR, ".sheet").text
    press(browser, Keys.ESCAPE, "b")
    assert not browser.find_element(By.TAG_NAME, "main").is_displayed()
    press(browser, Keys.ARROW_RIGHT)
    assert browser.find_element(By.TAG_NAME, "main").is_displayed()
    assert place(browser) == "3 / 4"  # the key that ends the dark does nothing else
    assert browser.get_log("browser") == []


def test_speaker_notes_stand_in_a_second_window_and_follow(browser, small_deck):
    open_deck(browser, small_deck)
    assert "ask the room" not in visible(browser)
    first = browser.current_window_handle
    press(browser, "s")
    (second,) = set(browser.window_handles) - {first}
    browser.switch_to.window(second)
    try:
        assert "ask the room" in browser.find_element(By.ID, "said").text
        assert browser.find_element(By.ID, "next").text == "next: More"
        press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # its keys move the slides
        assert browser.find_element(By.ID, "said").text == "No notes."
        browser.switch_to.window(first)
        assert place(browser) == "2 / 4"
    finally:
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)


def test_without_a_second_window_the_notes_lie_under_the_slide(browser, small_deck):
    open_deck(browser, small_deck)
    browser.execute_script("window.open = () => null")
    press(browser, "s")
    assert "ask the room" in browser.find_element(By.CSS_SELECTOR, ".sheet").text
    press(browser, Keys.ARROW_DOWN)
    assert "No notes" in browser.find_element(By.CSS_SELECTOR, ".sheet").text


def test_a_print_has_a_page_for_each_slide(browser, small_deck):
    count = open_deck(browser, small_deck)
    made = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", base64.b64decode(made["data"]))) == count


def test_a_smaller_window_shows_the_whole_slide(browser, small_deck):
    size = {"deviceScaleFactor": 1, "mobile": False}
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 800, "height": 600, **size})
        open_deck(browser, small_deck)
        box = browser.execute_script(
            "const { left, top, right, bottom } = document.querySelector('main').getBoundingClientRect();"
            "return [left, top, right, bottom].map(Math.round)"
        )
        assert box == [0, 75, 800, 525]
    finally:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 720, **size})


def test_what_a_notebook_holds_runs_nowhere(browser, tmp_path):
    attack = "</script></pre><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    script = '<script>top.document.title = "taken"</script>'
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 90">{script}</svg>'
    image = new_output("display_data", data={"image/svg+xml": drawn})
    html_only = new_output("display_data", data={"text/html": attack, "text/plain": "the plain form"})
    cells = [
        typed("markdown", f"# Title {attack}\n\n{attack}\n\n`{attack}` $a</script>$", "slide"),
        typed("code", f"'''{attack}'''", "fragment", outputs=[image, html_only]),
        typed("markdown", f'Figure: "{attack}', "fragment"),
        typed("markdown", attack, "notes"),
        typed("code", "1", "subslide", outputs=[new_output("stream", name="stdout", text=attack)]),
    ]
    notebook, path = tmp_path / "attack.ipynb", tmp_path / "attack.html"
    nbformat.write(new_notebook(cells=cells), notebook)
    slides.write(slides.read(notebook), path)
    assert look_at_all(browser, path) == {}
    assert browser.title.startswith("Title </script>")
    assert "the plain form" in browser.page_source and browser.get_log("browser") == []
