"""A forest of decision trees as plain arrays: grown by scikit-learn, kept and applied without it having to be trusted.

A random forest averages the class shares of its leaves; a boosted one adds up leaf values and takes the logistic
function. Both are the same arrays, which `emlib.refine.model_file` writes: no pickle, which could run code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emlib.errors import UserError
from emlib.threads import get_threads, map_threads

CLASSIFIERS = ("rf", "hgb")
_CHUNK = 100_000  # rows that are classified at once


@dataclass(frozen=True)
class ForestSettings:
    """How trees are grown."""

    classifier: str = "rf"  # or "hgb": gradient boosting on histograms
    trees: int = 40
    min_leaf: int = 10  # examples; fewer make deeper trees, which take longer to walk and tell hardly more
    learning_rate: float = 0.1  # of boosting alone
    max_leaves: int = 31  # of a boosted tree


def check_forest(name: str, settings: ForestSettings) -> None:
    """Refuse settings that no forest can be grown with.

    Parameters
    ----------
    name : str
        Where they stand among the settings of a run, for the message.
    settings : ForestSettings

    Raises
    ------
    UserError
        Naming the first of them.

    Examples
    --------
    >>> check_forest("edges.forest", ForestSettings(trees=0))
    Traceback (most recent call last):
    ...
    emlib.errors.UserError: --set edges.forest.trees=0: must be at least 1
    """
    if settings.classifier not in CLASSIFIERS:
        raise UserError(f"--set {name}.classifier={settings.classifier}: choose from {', '.join(CLASSIFIERS)}")
    for key, low in (("trees", 1), ("min_leaf", 1), ("max_leaves", 2)):
        if (value := getattr(settings, key)) < low:
            raise UserError(f"--set {name}.{key}={value}: must be at least {low}")
    if not 0 < settings.learning_rate <= 1:
        raise UserError(f"--set {name}.learning_rate={settings.learning_rate:g}: must lie above 0 and be at most 1")


@dataclass(frozen=True)
class Forest:
    """Trees for the probability of one class.

    Attributes
    ----------
    names : tuple of str
        Features, in the order of the columns.
    starts : (T + 1,) int64 array
        Where the nodes of each tree begin, and where the last ends.
    left, right : (N,) int64 array
        Children, counted from the beginning of the tree; -1 at a leaf. Left where the feature is at most the threshold.
    feature : (N,) int64 array
        Column; 0 at a leaf.
    threshold, value : (N,) float64 array
        What a node asks; what a leaf says.
    boosted : bool
        Leaf values are added up as log-odds, rather than averaged as probabilities.
    offset : float
        Log-odds before the first boosted tree.
    """

    names: tuple[str, ...]
    starts: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    boosted: bool = False
    offset: float = 0.0

    def __len__(self) -> int:
        """Return the number of trees."""
        return len(self.starts) - 1

    def probability(self, features: np.ndarray) -> np.ndarray:
        """Return the probability of the class.

        Parameters
        ----------
        features : (N, F) float32 array
            Columns as ``names``.

        Returns
        -------
        (N,) float64 array in [0, 1]
            That of scikit-learn's model in one thread, to the last bit, whatever the number of threads here.

        Raises
        ------
        ValueError
            If the number of columns differs.
        """
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise ValueError(f"features have shape {features.shape}, the forest knows {len(self.names)} columns")
        trees = list(self._trees())
        starts = range(0, len(features), _CHUNK)

        def chunk(start: int) -> np.ndarray:
            rows = np.ascontiguousarray(features[start : start + _CHUNK], np.float32)
            total = np.full(len(rows), self.offset)
            for tree, value in trees:
                total += value[tree.apply(rows)]
            if not self.boosted:
                return total / len(trees)
            from scipy.special import expit

            return expit(total)

        return np.concatenate([*map_threads(chunk, starts), np.zeros(0)])

    def _trees(self) -> Iterator[tuple]:
        """The trees as scikit-learn walks them, some tens of times faster than NumPy, each with its values."""
        from sklearn.tree._tree import NODE_DTYPE, Tree

        for first, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            nodes = np.zeros(end - first, NODE_DTYPE)
            nodes["left_child"], nodes["right_child"] = self.left[first:end], self.right[first:end]
            nodes["feature"], nodes["threshold"] = self.feature[first:end], self.threshold[first:end]
            tree = Tree(len(self.names), np.ones(1, np.intp), 1)
            values = np.zeros((len(nodes), 1, 1))
            tree.__setstate__({"max_depth": 0, "node_count": len(nodes), "nodes": nodes, "values": values})
            yield tree, self.value[first:end]


def grow_forest(
    features: np.ndarray, positive: np.ndarray, names: Sequence[str], settings: ForestSettings, seed: int = 0
) -> tuple[Forest, np.ndarray]:
    """Grow a forest on examples.

    Parameters
    ----------
    features : (N, F) float32 array
    positive : (N,) bool array
        Both values must occur.
    names : sequence of F str
    settings : ForestSettings
    seed : int

    Returns
    -------
    forest : Forest
    importance : (F,) float array, sum 1
        Mean decrease of Gini impurity by the splits on each feature, NaN for "hgb", which has none.

    Raises
    ------
    ValueError
        If the classifier is unknown.

    Notes
    -----
    Breiman 2001 and Friedman 2001 (on histograms: Ke et al. 2017), as scikit-learn has them.
    """
    if settings.classifier not in CLASSIFIERS:
        raise ValueError(f"classifier must be one of {', '.join(CLASSIFIERS)}, got {settings.classifier!r}")
    features = np.ascontiguousarray(features, np.float32)
    state = seed % 2**32  # what scikit-learn takes
    if settings.classifier == "rf":
        from sklearn.ensemble import RandomForestClassifier

        model = RandomForestClassifier(
            settings.trees, min_samples_leaf=settings.min_leaf, random_state=state, n_jobs=get_threads()
        )
        model.fit(features, positive)
        return from_random_forest(model, names), model.feature_importances_
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        learning_rate=settings.learning_rate,
        max_leaf_nodes=settings.max_leaves,
        min_samples_leaf=settings.min_leaf,
        early_stopping=False,
        random_state=state,
    )
    # Sums of gradients are added up in the order of the threads: with one the trees do not depend on their number.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(features, positive)
    return from_boosting(model, names), np.full(len(names), np.nan)


def from_random_forest(model: object, names: Sequence[str]) -> Forest:
    """Take the arrays out of a fitted `sklearn.ensemble.RandomForestClassifier` of two classes."""
    trees = [one.tree_ for one in model.estimators_]
    leaf = [tree.children_left < 0 for tree in trees]
    return _joined(
        names,
        left=[tree.children_left for tree in trees],
        right=[tree.children_right for tree in trees],
        feature=[np.where(end, 0, tree.feature) for tree, end in zip(trees, leaf, strict=True)],
        threshold=[np.where(end, 0, tree.threshold) for tree, end in zip(trees, leaf, strict=True)],
        value=[np.where(end, tree.value[:, 0, 1], 0) for tree, end in zip(trees, leaf, strict=True)],
    )


def from_boosting(model: object, names: Sequence[str]) -> Forest:
    """Take the arrays out of a fitted `sklearn.ensemble.HistGradientBoostingClassifier` of two classes."""
    trees = [one[0].nodes for one in model._predictors]
    leaf = [nodes["is_leaf"].astype(bool) for nodes in trees]
    pairs = list(zip(trees, leaf, strict=True))
    return _joined(
        names,
        left=[np.where(end, -1, nodes["left"].astype(np.int64)) for nodes, end in pairs],
        right=[np.where(end, -1, nodes["right"].astype(np.int64)) for nodes, end in pairs],
        feature=[np.where(end, 0, nodes["feature_idx"]) for nodes, end in pairs],
        threshold=[np.where(end, 0, nodes["num_threshold"]) for nodes, end in pairs],
        value=[np.where(end, nodes["value"], 0) for nodes, end in pairs],
        boosted=True,
        offset=float(np.ravel(model._baseline_prediction)[0]),
    )


def _joined(names: Sequence[str], *, boosted: bool = False, offset: float = 0.0, **columns: list[np.ndarray]) -> Forest:
    starts = np.cumsum([0, *map(len, columns["left"])]).astype(np.int64)
    kinds = {"threshold": np.float64, "value": np.float64}
    arrays = {name: np.concatenate(parts).astype(kinds.get(name, np.int64)) for name, parts in columns.items()}
    return Forest(tuple(names), starts, boosted=boosted, offset=offset, **arrays)
