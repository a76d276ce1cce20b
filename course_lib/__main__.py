"""The command line: `python -m course_lib COMMAND`. The library's commands are in `course_lib.cli`, the course's here."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # until a command runs, Ctrl-C just ends this: no traceback of imports

# Before Keras and its backend are loaded: TensorFlow's start-up notes are not about the course.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from course_lib import cli
from course_lib.cli import FLAG, OUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error during the command, 2 for an invalid command line."""
    return cli.run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m course_lib", description="The course's data, trainings and networks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cli.add_commands(commands)

    def command(name: str, summary: str, function) -> argparse.ArgumentParser:
        return cli.add_command(commands, name, summary, function)

    claims = command("claims", "the course's claims and what was measured", run_claims)
    claims.add_argument(
        "--run",
        dest="claims",
        metavar="ID",
        action="append",
        help="first carry out the missing runs of this claim, such as 4.1, or of all; then judge it from all runs",
    )
    claims.add_argument(
        "--minutes",
        type=lambda text: cli.positive(text, "minutes", zero=True),
        metavar="M",
        help="with --run: start no new run after M minutes",
    )
    claims.add_argument("--write", help="with --run: write the verdicts to data/results/", **FLAG)
    claims.add_argument(
        "--status", help="list the experiments: runs done, missing and stale, and minutes", **FLAG
    )

    cards = command("cards", "write the flashcards for Anki", run_cards)
    cards.add_argument("--out", metavar="FILE", help="a file name that ends in .apkg", **OUT)

    quiz = command("quiz", "write the quiz for a learning platform", run_quiz)
    quiz.add_argument("--out", metavar="FILE", help="ends in .xml (Moodle), .gift or .zip (QTI 1.2)", **OUT)

    exam = command("exam", "write a mixed test on paper, with its marking scheme", run_exam)
    exam.add_argument("--out", metavar="DIR", help="where the files go", **OUT)
    exam.add_argument("--questions", type=int, default=30, metavar="N", help="3 minutes each (default: 30)")
    exam.add_argument(
        "--seed", type=int, default=0, metavar="S", help="a different seed draws a different test"
    )

    slides = command("slides", "write notebooks as slides", run_slides)
    help_ = "chapters, such as 03, or notebook files (default: all chapters)"
    slides.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help=help_)
    help_ = "the output folder (default: slides/)"
    slides.add_argument("--out", type=Path, default=Path("slides"), metavar="DIR", help=help_)
    help_ = "the whole notebook as slides, even if there is a composed lecture"
    slides.add_argument("--reading", help=help_, **FLAG)
    slides.add_argument("--pdf", help="also a PDF of each, printed by Chromium", **FLAG)

    posters = command("posters", "draw a poster of each network", run_posters)
    help_ = "unet, fcn, deeplab, mask-rcnn (default: all)"
    posters.add_argument("names", nargs="*", metavar="NAME", help=help_)
    posters.add_argument("--out", metavar="DIR", help="where they go", **OUT)

    from course_lib.teaching import grading

    grading.add_options(command("grade", "grade the exercise notebooks that students handed in", grading.run))
    release = command("release", "write the students' copy of the course", grading.run_release)
    release.add_argument("out", type=Path, metavar="OUT", help="a new folder")

    for each in commands.choices.values():
        each.add_argument("--json", help="one JSON object as the last line of the output", **FLAG)
    return parser


def run_claims(options: argparse.Namespace) -> dict:
    """Print the ledger: each claim's verdict, its effect with a 95 % interval, the effect that the runs could have
    detected, and the gate that its networks passed. Runs are stored one by one: --run resumes where it stopped."""
    from course_lib.teaching import ledger

    if not options.claims and (options.write or options.minutes is not None):
        raise ValueError(
            "--write and --minutes belong to --run; name a claim, such as --run 4.1, or --run all."
        )
    found = ledger.command(options.claims or (), options.minutes, options.write, options.status)
    for line in found.lines:
        print(line)
    return {"claims": found.claims, "experiments": found.experiments}


def run_cards(options: argparse.Namespace) -> dict:
    """Write the flashcards of all chapters as a deck for Anki; importing it again duplicates no card."""
    from course_lib.teaching import anki

    count = anki.write(options.out)
    print(f"{options.out}: {count} cards")
    return {"deck": str(options.out), "cards": count}


def run_quiz(options: argparse.Namespace) -> dict:
    """Write the questions of all chapters, with an explanation of each choice, as a file that Moodle (.xml, .gift), Canvas
    or Blackboard (.zip) import: a category for each chapter."""
    from course_lib.teaching import lms

    count = lms.write(options.out)
    print(f"{options.out}: {count} questions")
    return {"quiz": str(options.out), "questions": count}


def run_exam(options: argparse.Namespace) -> dict:
    """Write a test drawn evenly from all chapters: DIR/test.html and test.md for the students, DIR/marking.md with the
    answers, the points and why each of the other choices is incorrect."""
    from course_lib.teaching import lms

    written = [str(path) for path in lms.exam(options.out, options.questions, options.seed)]
    print("\n".join(written))
    return {"exam": written}


def run_posters(options: argparse.Namespace) -> dict:
    """Draw a poster of each network, read off the live model as published: DIR/<name>.svg and DIR/<name>.pdf, a page of
    size A3 each, with its shapes, its numbers and how to read it. The networks are built for it, one after the other; the
    largest takes about 1 GB of memory."""
    from course_lib.teaching import posters

    written = []
    for path in posters.write(options.out, options.names):
        print(path, flush=True)
        written.append(str(path))
    return {"posters": written}


def run_slides(options: argparse.Namespace) -> dict:
    """Write each chapter's lecture: DIR/<stem>.html, one file with its images, formulas and speaker notes inside, which any
    browser shows without a network. Press ? in it for the keys. Where no lecture is composed, and with --reading, the
    file holds the whole notebook as slides, with its outputs."""
    from course_lib.teaching import slides

    # All are read before the first is written: a notebook that cannot become slides is named before anything changes.
    decks = [(path, slides.of_chapter(path, options.reading)) for path in slides.chapters(options.notebooks)]
    written = []
    for path, _ in decks:
        for target in (options.out / f"{path.stem}.html", options.out / f"{path.stem}.pdf"):
            if target.exists() and target.samefile(path):
                raise ValueError(f"{path} would be overwritten by its slides; give another --out.")
    for path, deck in decks:
        target = options.out / f"{path.stem}.html"
        slides.write(deck, target)
        for warning in deck.warnings:
            print(f"course_lib slides: {warning}", file=sys.stderr)
        print(f"{target}: {len(deck.slides)} slides", flush=True)
        entry = {"slides": str(target), "count": len(deck.slides), "warnings": deck.warnings}
        if options.pdf:
            entry["pdf"] = str(slides.print_pdf(target))
            print(entry["pdf"], flush=True)
        written.append(entry)
    return {"written": written}


if __name__ == "__main__":
    sys.exit(main())
