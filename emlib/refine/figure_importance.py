"""Figure: which features a forest relies on."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from emlib.publish.page import TEXT_PT, Page
from emlib.publish.style import BLUE, GREY, INK, ORANGE

ROW, PANEL, NAMES, GAP = 0.19, 2.9, 2.1, 0.3  # inches
SHOWN = 25


def figure_importance(table: pd.DataFrame, title: str, subtitle: str, note: str | None = None) -> Figure:
    """Draw the importance of features as bars, the most important on top.

    Parameters
    ----------
    table : DataFrame
        ``feature``; ``impurity`` and ``auc_fall`` as `importance_table` gives them, columns of NaN alone left out.
    title, subtitle : str
    note : str, optional
        Why the data are not real, if they are not.

    Returns
    -------
    Figure

    Examples
    --------
    >>> table = pd.DataFrame({"feature": ["a", "b"], "impurity": [0.9, 0.1], "auc_fall": [0.2, 0.0]})
    >>> len(figure_importance(table, "Pixels", "").axes)
    2
    """
    panels = [
        (name, caption, colour)
        for name, caption, colour in (
            ("impurity", "mean decrease of impurity", BLUE),
            ("auc_fall", "fall of the AUC when exchanged", ORANGE),
        )
        if name in table and table[name].notna().any()
    ]
    shown = table.head(SHOWN)
    height = ROW * len(shown)
    page = Page(NAMES + len(panels) * (PANEL + GAP), height + 0.55, title, note, subtitle)
    for number, (name, caption, colour) in enumerate(panels):
        axes = page.axes(NAMES + number * (PANEL + GAP), 0.05, PANEL, height)
        axes.barh(range(len(shown)), shown[name], color=colour, height=0.7)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_yticks(range(len(shown)), shown["feature"] if number == 0 else [])
        axes.set_xlabel(caption, fontsize=TEXT_PT)
        axes.tick_params(labelsize=TEXT_PT, colors=INK, length=0)
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return page.figure


def importance_table(names: list[str], impurity: object, auc_fall: object = float("nan")) -> pd.DataFrame:
    """Return features with their importance, most important first.

    Parameters
    ----------
    names : list of F str
    impurity, auc_fall : (F,) float array
        Mean decrease of impurity, sum 1; fall of the AUC when the feature's values are exchanged. NaN where not known.

    Returns
    -------
    DataFrame
        ``feature, impurity, auc_fall``.
    """
    table = pd.DataFrame({"feature": names, "impurity": impurity, "auc_fall": auc_fall})
    by = "impurity" if table["impurity"].notna().any() else "auc_fall"
    return table.sort_values([by, "feature"], ascending=[False, True], ignore_index=True)
