"""Sphinx's configuration of the course's site; `build.py` puts the sources together and calls it."""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Image segmentation, measured"
author = "the course's authors"
copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinxext.opengraph",
    "mathml",
]
# Where the site will stand, for its map and for previews; a copy to read at home has no such place.
html_baseurl = os.environ.get("SITE_URL", "")
ogp_site_url = html_baseurl or "/"
if html_baseurl:
    extensions.append("sphinx_sitemap")
    sitemap_url_scheme = "{link}"
ogp_social_cards = {"enable": False}
# The notebooks are shown as they are committed.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the widgets need a kernel; each has a still image
nb_merge_streams = True
nb_render_markdown_format = "myst"
default_role = "code"
# A class that a package hands on is described in the module that defines it: the reference may lead to either.
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "misc.highlighting_failure", "ref.python"]
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence", "html_image", "attrs_inline"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["terms.js", "glossary.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
}
# Where the repository is: then each chapter has buttons that open it on Colab and Binder.
if repository := os.environ.get("SITE_REPOSITORY", ""):
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": os.environ.get("SITE_BRANCH", "main"),
        "path_to_docs": "notebooks",  # the pages of the site are named as the files there
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        },
    }


def as_restructured_text(app, what, name, obj, options, lines):
    """The docstrings of this project are plain text with code in single backticks and |absolute values|."""
    for number, line in enumerate(lines):
        pieces = re.split(r"(`[^`]+`)", line)
        lines[number] = "".join(
            f"`{piece}`" if piece[:1] == "`" else piece.replace("|", r"\|") for piece in pieces
        )


def setup(app):
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)
