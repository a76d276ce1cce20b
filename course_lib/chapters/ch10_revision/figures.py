"""The figures of the revision, drawn from `data/results` alone."""

from collections.abc import Sequence

from course_lib.chapters.ch10_revision.revision import MARKS, SUMMARY, Entry
from course_lib.plot import COLOURS
from course_lib.teaching.statistics import MARGIN

KIND_COLOURS = {
    "demonstrated": "white",
    "supported": COLOURS[0],
    "supported when": COLOURS[4],
    "equivalent": COLOURS[2],
    "contradicted": COLOURS[1],
    "undecided": "0.85",
    "not measured yet": "0.95",
}
"""The colour of each kind of verdict; its mark says the same without colour."""


def draw_verdicts(entries: Sequence[Entry], width: float = 12.0):
    """All claims at a glance: a row for each topic, a tile for each claim, its mark and colour the verdict.

    Args:
        entries: as `revision.ledger` gives them.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    topics = sorted({entry.claim[0] for entry in entries})
    most = max(sum(entry.claim[0] == topic for entry in entries) for topic in topics)
    figure, axis = plt.subplots(figsize=(width, 0.62 * len(topics) + 1.4))
    for row, topic in enumerate(topics):
        axis.text(-0.1, row, SUMMARY[int(topic) - 1].topic, ha="right", va="center", fontsize=14)
        for column, entry in enumerate(entry for entry in entries if entry.claim[0] == topic):
            dark = entry.kind == "supported"
            axis.add_patch(
                Rectangle(
                    (column + 0.03, row - 0.44),
                    0.94,
                    0.88,
                    facecolor=KIND_COLOURS[entry.kind],
                    edgecolor="0.25",
                )
            )
            axis.text(
                column + 0.5,
                row,
                f"{MARKS[entry.kind]}  {entry.claim}",
                ha="center",
                va="center",
                fontsize=15,
                color="white" if dark else "black",
            )
    counts = {kind: sum(entry.kind == kind for entry in entries) for kind in MARKS}
    shown = [kind for kind in MARKS if counts[kind]]
    handles = [Rectangle((0, 0), 1, 1, facecolor=KIND_COLOURS[kind], edgecolor="0.25") for kind in shown]
    words = {"supported when": "supported when …"}
    labels = [f"{MARKS[kind]} {words.get(kind, kind)}: {counts[kind]}" for kind in shown]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), fontsize=14)
    axis.set(xlim=(-2.2, most + 0.02), ylim=(len(topics) - 0.5, -0.5))
    axis.axis("off")
    axis.set_title(f"The {len(entries)} claims and their verdicts")
    return figure


def draw_power(entries: Sequence[Entry], width: float = 12.0):
    """For each comparison of the ledger the smallest effect that its runs could have detected, and the one they found.

    Args:
        entries: as `revision.claims_ledger` gives them. Ratios are left out; their effects have another scale.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure, on a logarithmic axis of sizes of effects: a bar to the smallest effect that is found with a
        probability of 80 %, a diamond at the effect that was found, and dashed the smallest one that matters.
    """
    import matplotlib.pyplot as plt

    least = 1e-3
    rows = [
        (entry.claim, name, one)
        for entry in entries
        if entry.result
        for name, one in entry.result.comparisons.items()
        if not one["ratio"]
    ]
    figure, axis = plt.subplots(figsize=(width, 1.4 + 0.23 * len(rows)))
    for line, (_, _, one) in enumerate(rows):
        axis.barh(line, max(one["detectable"] - least, 0), left=least, color="0.85", height=0.7)
        colour = KIND_COLOURS[one["verdict"]] if one["verdict"] != "undecided" else "0.35"
        axis.plot(
            max(abs(one["mean"] - one["null"]), least), line, "D", color=colour, ms=8, zorder=3, clip_on=False
        )
    axis.axvline(MARGIN, color="0.3", ls="--", lw=1.5)
    axis.set(
        xscale="log", xlim=(least, 1.2), ylim=(len(rows) - 0.5, -0.5), xlabel="size of the effect (fraction)"
    )
    axis.set_xticks([0.001, 0.01, MARGIN, 0.1, 1], ["0.001", "0.01", f"{MARGIN:g}", "0.1", "1"])
    axis.minorticks_off()
    axis.set_yticks(range(len(rows)), [f"{claim}  {name}" for claim, name, _ in rows])
    axis.tick_params(axis="y", length=0)
    verdicts = {one["verdict"]: None for _, _, one in rows}
    handles = [plt.Rectangle((0, 0), 1, 1, color="0.85", label="too small for these runs")]
    handles += [
        plt.Line2D(
            [],
            [],
            marker="D",
            ls="",
            ms=8,
            label=word,
            color="0.35" if word == "undecided" else KIND_COLOURS[word],
        )
        for word in verdicts
    ]
    handles.append(plt.Line2D([], [], color="0.3", ls="--", lw=1.5, label="smallest that matters"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=12)
    return figure
