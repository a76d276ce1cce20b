"""A headless Chromium without a network for the tests of this folder; they are skipped where there is none."""

import importlib.util
import shutil
from types import SimpleNamespace

import pytest

WIDTH, HEIGHT = 1280, 720
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def programs():
    """Where Chromium and its driver are, and in words why they cannot be used here (empty where they can)."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    missing = [
        name
        for name, found in (
            ("Chromium", browser),
            ("chromedriver", driver),
            ("selenium", importlib.util.find_spec("selenium")),
        )
        if not found
    ]
    reason = (
        f"no {' and no '.join(missing)} (Debian: apt install chromium chromium-driver)" if missing else ""
    )
    return SimpleNamespace(browser=browser, driver=driver, reason=reason)


def chromium(folder):
    """Start a headless Chromium with an empty profile in `folder`, a page of 1280 x 720 and no host but this one."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = found.browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--no-first-run",
        "--force-device-scale-factor=1",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--user-data-dir={folder}",
        # No name is resolved but the machine's own, on which JupyterLab answers: a page that needs the net fails here.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    # What the page wrote to its console, and what it asked the network for.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found.driver))
    # The window's own frame takes some of its height, also where nobody sees it.
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
    )
    # A window nobody sees need not have the focus, and some versions leave it with their own first page: JupyterLab then
    # takes no notebook for the current one, and says nothing of its kernel.
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    return driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium for the tests of one file: `browser.get(url)`, `browser.execute_script(…)`,
    `browser.get_log("browser")` for the console and `browser.get_log("performance")` for the network."""
    if reason := programs().reason:
        pytest.skip(reason)
    driver = chromium(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()
