"""To study alone: exercises that check themselves, a quiz and flashcards for each chapter, a deck for Anki.

    from course_lib.study import check, quiz, cards
    check("01.2", my_box_iou)    # or check.box_iou(my_box_iou); says in words what is wrong
    check.hint("01.2")           # one hint more with each call
    quiz("01"); cards("01")      # in a notebook
    mixed_quiz(12); mixed_cards()    # out of all chapters

Names are loaded when they are first asked for.
"""

from importlib import import_module

_MODULE_OF = {
    "check": "checker",
    "quiz": "questions",
    "cards": "questions",
    "mixed_quiz": "questions",
    "mixed_cards": "questions",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
