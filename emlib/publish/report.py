"""One self-contained HTML page per run: what was run on, what came out, how good it is, when not to trust it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from emlib.publish.number_formats import format_bytes, format_value, is_number

if TYPE_CHECKING:
    import jinja2
    import pandas as pd


@dataclass(frozen=True)
class Number:
    """A headline number with what it means in plain words."""

    label: str
    value: Any
    meaning: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    title : str
    columns : list of str
        Names that end in ``id`` or are ``z``, ``y``, ``x`` hold whole numbers that are not grouped by thousands.
    rows : list of lists
    caption : str
        What the columns mean.
    link : str
        Path of the complete table, relative to the report.
    total : int, optional
        Rows of the complete table, if this one is cut short.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    link: str = ""
    total: int | None = None

    @classmethod
    def from_frame(
        cls, title: str, frame: pd.DataFrame, limit: int | None = 10, caption: str = "", link: str = ""
    ) -> Table:
        """Make a table of the first ``limit`` rows of a data frame."""
        cut = frame if limit is None else frame.head(limit)
        rows = [list(row) for row in cut.itertuples(index=False, name=None)]
        return cls(title, [str(name) for name in frame.columns], rows, caption, link, len(frame))


@dataclass(frozen=True)
class FigureItem:
    """A figure as PNG bytes, with its caption and the path of its PDF relative to the report."""

    name: str
    caption: str
    png: bytes
    pdf: str = ""


@dataclass(frozen=True)
class Timing:
    """Seconds of a stage, on the wall and of all processors, and the highest memory use seen in it."""

    stage: str
    seconds: float
    peak_mib: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Artefact:
    """A file that the run wrote: path relative to the report, what it is, and its shape and dtype if an array."""

    path: str
    what: str
    shape: Sequence[int] | None = None
    dtype: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class ReportContext:
    """All that a report shows.

    Attributes
    ----------
    title, run_id, status, command : str
    dataset : str
        URI of the source.
    voxel_size_nm : (z, y, x)
    shape, offset : (z, y, x) in voxels
    seed : int
    synthetic_note : str or None
        Banner over the page and reason for every number: the data are not real.
    warnings : list of str
        What went wrong or was assumed; shown on the first screen.
    notes : list of str
        Remarks without alarm.
    settings : dict of dicts
        Per stage, name to value.
    used : Table or None
        What each stage used.
    numbers : list of Number
    scores : list of Table or None
        Comparison with truth; None if there is none, and the report says that quality is unknown.
    checks : list of str
        What to check by eye when there is no truth; a default list if empty.
    tables : list of Table
    figures : list of FigureItem
    distrust : list of str
        "When not to trust this".
    timings : list of Timing
    start_mib : float
        Memory that was taken before the first stage; not counted per megavoxel.
    artefacts : list of Artefact
    versions : dict of str
    """

    title: str
    run_id: str
    status: str
    dataset: str
    voxel_size_nm: tuple[float, float, float]
    shape: tuple[int, int, int]
    offset: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    command: str = ""
    synthetic_note: str | None = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    used: Table | None = None
    numbers: Sequence[Number] = ()
    scores: Sequence[Table] | None = None
    checks: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[FigureItem] = ()
    distrust: Sequence[str] = ()
    timings: Sequence[Timing] = ()
    start_mib: float = 0.0
    artefacts: Sequence[Artefact] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


CHECKS = (
    "Figure 1, x–z and y–z cuts: after alignment membranes run smoothly across sections, without teeth.",
    "Figure 1, neurites: colours end at membranes. One colour on both sides of a membrane is a merge, a change of "
    "colour inside a neurite is a split.",
    "Figure 5: boundaries are closed lines; a fragment stays on one side of them; neurites join fragments across gaps "
    "that are no membrane.",
    "Figure 6: neurites are smooth processes. Right angles, sheets and bushes are several, merged.",
    "Figure 2, enlarged candidates: a dark cleft between two neurites with vesicles on the presynaptic side.",
    "Figure 3: a neurite with far more partners than all others is often several neurites merged into one.",
    "Figure 4: shaded sections are where neurites are most likely cut or joined wrongly.",
)


def render_report(context: ReportContext) -> str:
    """Return the report as one HTML page with its images inside; it loads nothing and runs no script.

    Parameters
    ----------
    context : ReportContext

    Returns
    -------
    str
        Equal contexts give equal pages.
    """
    return _template().render(c=context, checks=context.checks or CHECKS, costs=cost_table(context))


def cost_table(context: ReportContext) -> Table | None:
    """Make the table of seconds and memory by stage, as they are and per megavoxel; None without timings."""
    if not context.timings:
        return None
    megavoxels = context.shape[0] * context.shape[1] * context.shape[2] / 1e6

    def row(name: str, seconds: float, spent: float | None, peak: float | None) -> list[Any]:
        more = None if peak is None else round(max(0.0, peak - context.start_mib) / megavoxels)
        told = [None if value is None else round(value, 2) for value in (seconds, spent, seconds / megavoxels)]
        return [name, *told, None if peak is None else round(peak), more]

    timings = context.timings
    rows = [row(t.stage, t.seconds, t.cpu_seconds, t.peak_mib) for t in timings]
    peaks = [t.peak_mib for t in timings if t.peak_mib is not None]
    spent = [t.cpu_seconds for t in timings if t.cpu_seconds is not None]
    total = row("total", sum(t.seconds for t in timings), sum(spent) if spent else None, max(peaks, default=None))
    caption = (
        f"{megavoxels:.3g} megavoxels. Processor seconds are those of all threads together. Peak is the memory of the "
        f"whole process; per megavoxel without the {context.start_mib:.0f} MiB that it took before the first stage."
    )
    columns = ["stage", "seconds", "CPU seconds", "s / Mvox", "peak MiB", "MiB / Mvox"]
    return Table("Time and memory", columns, [*rows, total], caption)


def _link(path: str) -> str:
    """Return a path as a relative link; a scheme such as ``javascript:`` is quoted away."""
    return quote(str(path).replace("\\", "/"), safe="/._-")


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        value=format_value, size=format_bytes, link=_link, base64=lambda data: base64.b64encode(data).decode()
    )
    environment.tests["numeric"] = is_number
    text = resources.files("emlib.publish").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)
