"""The static site in a Chromium without a network: links lead somewhere, nothing comes from elsewhere, it can be used."""

import functools
import http.server
import importlib.util
import json
import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PROJECT = Path(__file__).resolve().parents[2]
PHONE = (390, 844)


def load_build():
    spec = importlib.util.spec_from_file_location("docs_build", PROJECT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site; `COURSE_SITE` names one that is built already."""
    if not importlib.util.find_spec("myst_nb"):
        pytest.skip("no Sphinx with myst-nb here (the extra `site` brings it)")
    folder = tmp_path_factory.mktemp("site")
    if ready := os.environ.get("COURSE_SITE"):
        return Path(ready)
    before = set(folder.parent.iterdir())
    assert load_build().build(folder) == 0
    assert set(folder.parent.iterdir()) == before  # nothing is left beside the site
    return folder


@pytest.fixture(scope="session")
def address(site):
    """Where the site is served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


class Page(HTMLParser):
    """The title, the links, the anchors and the images of a page."""

    def __init__(self, path):
        super().__init__()
        self.title, self.links, self.anchors, self.without_alt, self._in_title = "", [], set(), [], False
        self.feed(path.read_text(encoding="utf8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        for name in ("href", "src"):
            if tag in ("a", "link", "script", "img") and attributes.get(name):
                self.links.append(attributes[name])
        if tag == "img" and not attributes.get("alt"):
            self.without_alt.append(attributes.get("src"))
        self._in_title = tag == "title"

    def handle_data(self, data):
        if self._in_title:
            self.title += data.strip()

    def handle_endtag(self, tag):
        self._in_title = False


def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


def test_every_page_has_a_title_and_every_link_leads_somewhere(site):
    found = pages(site)
    assert len(found) > 40
    wrong = []
    for path, page in found.items():
        if not page.title:
            wrong.append(f"{path.name}: no title")
        for link in page.links:
            address, anchor = urldefrag(link)
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:  # to elsewhere, or an image within the page
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link} leads nowhere")
            elif anchor and target in found and unquote(anchor) not in found[target].anchors:
                wrong.append(f"{path.relative_to(site)}: {link} has no such place")
    assert wrong == []


def test_nothing_but_links_points_elsewhere(site):
    pattern = re.compile(
        r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)[^"]*"'
    )
    elsewhere = {
        str(path.relative_to(site)): found
        for path in pages(site)
        if (
            found := [
                hit
                for hit in pattern.findall(path.read_text(encoding="utf8"))
                if 'rel="canonical"' not in hit
            ]
        )
    }
    assert elsewhere == {}


def requests_to_elsewhere(browser, address):
    found = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith((address, "data:", "blob:", "about:", "chrome")):
                found.append(url)
    return found


def complaints(browser):
    return [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


@pytest.fixture
def fresh(browser):
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    return browser


@pytest.mark.parametrize("size", [(1280, 720), PHONE], ids=["screen", "phone"])
def test_no_page_complains_asks_elsewhere_or_is_wider_than_the_window(fresh, site, address, size):
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    fresh.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wrong = []
    for path in sorted(site.glob("*.html")):
        fresh.get(f"{address}/{path.name}")
        if said := complaints(fresh):
            wrong.append(f"{path.name}: {said}")
        if asked := requests_to_elsewhere(fresh, address):
            wrong.append(f"{path.name} asks {asked}")
        wide = fresh.execute_script("return document.documentElement.scrollWidth - innerWidth")
        if wide > 1:
            wrong.append(f"{path.name}: {wide} pixels too wide")
    fresh.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False},
    )
    assert wrong == []


def test_the_search_finds_roi_align(fresh, address):
    fresh.get(f"{address}/search.html?q=RoI+Align")
    hits = WebDriverWait(fresh, 20).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    assert any("06_mask_rcnn" in hit.get_attribute("href") for hit in hits)


def test_a_term_in_bold_shows_what_it_means(fresh, address):
    fresh.get(f"{address}/03_unet_encoder.html")
    terms = fresh.find_elements(By.CSS_SELECTOR, "strong.course-term")
    assert len(terms) >= 5
    assert all(len(term.get_attribute("title")) > 20 for term in terms)


def test_a_quiz_can_be_answered_in_the_page(fresh, address):
    fresh.get(f"{address}/03_unet_encoder.html")
    choice = fresh.find_element(By.CSS_SELECTOR, ".MCButton")
    fresh.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", choice)
    feedback = fresh.find_elements(By.CSS_SELECTOR, ".Feedback")
    assert any(each.text.strip() for each in feedback)


def test_the_network_segments_an_image_in_the_page_as_python_does(fresh, site, address):
    if not (site / "segment.html").is_file():
        pytest.skip("the site was built without onnxruntime-web: npm was not here")
    from PIL import Image

    import course_lib

    fresh.get(f"{address}/segment.html")
    fresh.find_element(By.ID, "segment-example").click()
    WebDriverWait(fresh, 120).until(
        lambda driver: (
            "objects in" in driver.find_element(By.ID, "segment-status").text
            or "not work" in driver.find_element(By.ID, "segment-status").text
        )
    )
    status = fresh.find_element(By.ID, "segment-status").text
    assert "objects in" in status
    found = fresh.execute_script("return [...window.segmentation.labels]")
    image = np.asarray(Image.open(site / "_static" / "segment" / "example.png")) / np.float32(255)
    expected = course_lib.load("unet-nuclei").predict(image[..., None])
    labels = np.array(found).reshape(expected.shape)
    assert expected.max() > 5 and abs(int(labels.max()) - int(expected.max())) <= 1
    # The same object for every pixel: the pairs of numbers that lie on one another.
    same = sum(
        np.unique(labels[expected == number], return_counts=True)[1].max()
        for number in range(1, expected.max() + 1)
    ) + np.sum((labels == 0) & (expected == 0))
    assert same >= 0.99 * expected.size
    assert requests_to_elsewhere(fresh, address) == [] and complaints(fresh) == []
