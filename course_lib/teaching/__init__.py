"""To study alone: exercises that check themselves, a quiz and flashcards for each chapter, a deck for Anki.

from course_lib.teaching import check, guess, quiz, cards
check("01.2", my_box_iou)    # or check.box_iou(my_box_iou); says in words what is wrong
check.hint("01.2")           # one hint more with each call
q = guess("How many?", low=0, high=40)    # in a later cell: q.reveal(31)
progress.show()              # what you have solved so far, from a file of your own
quiz("01"); cards("01")      # in a notebook
mixed_quiz(12); mixed_cards()    # out of all chapters
"""

from course_lib.teaching import progress
from course_lib.teaching.checker import check
from course_lib.teaching.guess import guess
from course_lib.teaching.questions import cards, mixed_cards, mixed_quiz, quiz

__all__ = ["cards", "check", "guess", "mixed_cards", "mixed_quiz", "progress", "quiz"]
