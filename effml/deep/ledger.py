"""The ledger of a plan: what every phase cost and brought, as a table, a file and a Pareto plot."""

import json
from dataclasses import asdict, dataclass, fields

from effml.selection.pareto import pareto_front

__all__ = ["Entry", "Ledger"]

_HEADINGS = {
    "phase": "phase",
    "kind": "kind",
    "quality": "quality",
    "params": "params",
    "size_bits": "size (bits)",
    "file_bytes": "file (bytes)",
    "macs": "MACs",
    "peak_activation_bytes": "activations (bytes)",
    "latency_ms": "latency (ms)",
    "seconds": "seconds",
    "kept": "kept",
}


@dataclass(frozen=True)
class Entry:
    """One phase: the quality on validation data and the cost of what would ship after it."""

    phase: str
    kind: str
    quality: float
    params: int
    size_bits: int
    file_bytes: int
    macs: int
    peak_activation_bytes: int
    latency_ms: float
    seconds: float
    kept: bool = True


class Ledger(list):
    """A list of entries that prints as a table.

    Examples
    --------
    >>> from effml.deep.ledger import Entry, Ledger
    >>> ledger = Ledger([Entry("start", "-", 0.9, 10, 320, 100, 10, 40, 0.1, 0.0)])
    >>> "start" in str(ledger), ledger.front()
    (True, [0])
    """

    def __rich__(self):
        from rich.table import Table

        table = Table(*_HEADINGS.values())
        for entry in self:
            table.add_row(*(_cell(getattr(entry, field.name)) for field in fields(Entry)))
        return table

    def __str__(self):
        from rich.console import Console

        console = Console(width=160, no_color=True)
        with console.capture() as capture:
            console.print(self.__rich__())
        return capture.get()

    def to_markdown(self):
        """The table in Markdown."""
        rows = [list(_HEADINGS.values()), ["---"] * len(_HEADINGS)]
        rows += [[_cell(getattr(entry, field.name)) for field in fields(Entry)] for entry in self]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def front(self):
        """Positions of the entries that none beats in both quality and bytes of the file."""
        return [int(i) for i in pareto_front([[-entry.quality, entry.file_bytes] for entry in self])]

    def plot(self, ax=None, *, start=False):
        """Draw quality against bytes of the file: the way of the plan, its front, phases taken back as crosses.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
        start : bool, default=False
            Whether to draw the model as given, which is often untrained.

        Returns
        -------
        ax : matplotlib.axes.Axes
        """
        if ax is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError as error:
                raise ImportError('plots need matplotlib: pip install "effml[plot]"') from error
            ax = plt.figure(figsize=(7, 4), layout="constrained").add_subplot()
        drawn = Ledger(self if start or len(self) == 1 else self[1:])
        kept, back = [entry for entry in drawn if entry.kept], [entry for entry in drawn if not entry.kept]
        ax.plot(*_points(kept), "-", color="0.8", zorder=1)
        front = sorted((drawn[i].file_bytes, drawn[i].quality) for i in drawn.front())
        ax.step(*zip(*front, strict=True), where="post", color="tab:blue", linewidth=1, label="Pareto front")
        ax.scatter(*_points(kept), color="tab:blue", zorder=2, label="kept")
        if back:
            ax.scatter(*_points(back), marker="x", color="tab:red", label="taken back")
        for position, entry in enumerate(drawn):
            offset = (0, 7 if position % 2 else -13)
            name, place = entry.phase.partition("(")[0], (entry.file_bytes, entry.quality)
            ax.annotate(name, place, xytext=offset, textcoords="offset points", fontsize=8, ha="center")
        ax.margins(0.15)
        ax.set_xscale("log")
        ax.set_xlabel("file (bytes)")
        ax.set_ylabel("quality")
        ax.legend(loc="lower left")
        return ax

    def to_json(self):
        """Text that `from_json` reads."""
        return json.dumps([asdict(entry) for entry in self], indent=1)

    @classmethod
    def from_json(cls, text):
        """The ledger of such a text."""
        return cls(Entry(**row) for row in json.loads(text))


def _cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _points(entries):
    return [entry.file_bytes for entry in entries], [entry.quality for entry in entries]
