"""The map of the course: its order, its drawing, and which notebooks it calls written."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from course_lib.plot import COLOURS
from course_lib.teaching import course_map

PROJECT = Path(__file__).resolve().parents[2]
NUMBERS = [chapter.number for chapter in course_map.CHAPTERS]


def test_a_chapter_needs_earlier_ones_only():
    assert sorted(NUMBERS) == NUMBERS
    for position, chapter in enumerate(course_map.CHAPTERS):
        assert set(chapter.needs) <= set(NUMBERS[:position]), chapter.name
        assert chapter.needs or position == 0


def test_the_map_and_the_readme_name_the_same_notebooks():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| .*`((?:\d\d[a-z]?|[A-Z])_\w+)`", readme, re.M) == [
        chapter.name for chapter in course_map.CHAPTERS
    ]


def test_no_two_chapters_share_a_place_and_arrows_point_right():
    places = {chapter.number: chapter.place for chapter in course_map.CHAPTERS}
    assert len(set(places.values())) == len(places)
    for chapter in course_map.CHAPTERS:
        assert all(places[needed][0] < chapter.place[0] for needed in chapter.needs), chapter.name


def test_written_is_what_lies_in_the_folder(tmp_path):
    assert course_map.written(tmp_path) == set()
    (tmp_path / "03_unet_encoder.ipynb").touch()
    (tmp_path / "my_own_notes.ipynb").touch()
    assert course_map.written(tmp_path) == {"03_unet_encoder"}


def test_a_chapter_may_go_on_in_a_second_notebook(tmp_path):
    chapter = course_map.CHAPTERS[NUMBERS.index("06")]
    assert chapter.notebooks(tmp_path) == []
    for name in ("06b_more.ipynb", f"{chapter.name}.ipynb", "06_other.ipynb", "07b_more.ipynb"):
        (tmp_path / name).touch()
    assert [path.stem for path in chapter.notebooks(tmp_path)] == [chapter.name, "06b_more"]


def test_the_drawing_fills_what_is_here_and_nothing_else():
    figure, axis = course_map.draw({"00_start_here", "04_unet_decoder"})
    filled = [to_hex(patch.get_facecolor()).upper() == COLOURS[0] for patch in axis.patches]
    plt.close(figure)
    assert filled == [number in ("00", "04") for number in NUMBERS]


def test_the_drawing_has_every_number_and_an_arrow_for_every_need():
    figure, axis = course_map.draw(())
    texts = [text.get_text() for text in axis.texts]
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    plt.close(figure)
    assert [text for text in texts if text in NUMBERS] == NUMBERS
    assert len(arrows) == sum(len(chapter.needs) for chapter in course_map.CHAPTERS)


def test_a_name_that_is_no_chapter_is_an_error():
    with pytest.raises(ValueError, match="99_extra"):
        course_map.draw({"99_extra"})
