"""A random forest that rejects false tumour candidates, and its threshold.

A forest learns on training patients which candidates (:mod:`lits_helpers.candidates`) are tumours
(:func:`train_filter`); those under a probability are taken out (:func:`filter_candidates`). It is
kept as plain arrays and predicts with NumPy: no pickle, and no scikit-learn to use it.

The idea is that of Chlebus, Meine, Moltz, Schenk, "Neural network-based automatic liver tumor
segmentation with random forest-based candidate filtering", arXiv:1706.00842 (2017), second of LiTS
at ISBI 2017. Their successor (Chlebus et al., Scientific Reports 8 (2018) 15497) uses 256 trees on
36 features of image statistics, shape and distance to the liver's border, and reports 85 % fewer
false findings. Both were read in abstract and summary only. So the features here, those of texture
and the rule for a true candidate are our own, and the prediction is any mask, not their cascade's.

Tried on 20 LiTS volumes of every second slice, learnt and cut on ten and used on the other ten, both
ways round, with the true liver (an oracle) and "darker than it" (:mod:`lits_helpers.baselines`, 10
voxels and more) as prediction: right were 131 of 2,778 candidates before and 56 of 227 after; found
were 68 of 78 lesions before and 59 after; the mean Dice of the 16 patients with tumour rose from 0.23
to 0.28. Shape and place told most: without them little was learnt.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .candidates import NO_FEATURES
from .distances import bounding_box
from .files import DataError, atomic_path
from .lesions import LesionCounts, components

TREES = 256  # Chlebus et al. 2018
THRESHOLDS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, eq=False)
class CandidateFilter:
    """A random forest as arrays; made by :func:`train_filter` or :meth:`load`.

    Attributes
    ----------
    names : str array (features,)
        Columns of the table that it looks at, in this order.
    roots : int32 array (trees,)
        First node of each tree; a tree's nodes lie together.
    left, right : int32 array (nodes,)
        Where a candidate goes on from here; -1 in a leaf.
    feature : int32 array (nodes,)
        Number of the feature that is asked, -1 in a leaf.
    threshold : float64 array (nodes,)
        Left if the feature, as a 32-bit float, is at most this.
    unknown_left : bool array (nodes,)
        Whether one whose feature is NaN goes left.
    share : float64 array (nodes,)
        Weighted share of true ones among the training candidates that came here.
    """

    names: np.ndarray
    roots: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    unknown_left: np.ndarray
    share: np.ndarray

    def probabilities(self, features: pd.DataFrame) -> np.ndarray:
        """How probable it is that each candidate is true: the mean over the trees.

        Parameters
        ----------
        features : DataFrame
            Of :func:`lits_helpers.candidates.candidate_features` or its table, of the same kind of image.

        Returns
        -------
        float64 array (candidates,), in [0, 1]
            The same numbers as scikit-learn's ``predict_proba`` gives.

        Raises
        ------
        DataError
            If a feature is missing.
        """
        missing = [name for name in self.names if name not in features]
        if missing:
            raise DataError(
                f"the filter asks for {missing}, which these candidates lack: describe them from the kind of "
                "image and with the options it was trained on"
            )
        values = features[list(self.names)].to_numpy(np.float32)
        node = np.tile(self.roots, (len(values), 1))  # (candidates, trees)
        rows = np.arange(len(values))[:, None]
        while (inner := self.left[node] >= 0).any():
            value = values[rows, self.feature[node]]
            goes_left = np.where(np.isnan(value), self.unknown_left[node], value <= self.threshold[node])
            node = np.where(inner, np.where(goes_left, self.left[node], self.right[node]), node)
        total = np.zeros(len(values))
        for tree in self.share[node].T:  # one after the other, as scikit-learn adds them
            total += tree
        return total / len(self.roots)

    def save(self, path: Path) -> Path:
        """Write the arrays to an ``.npz`` file."""
        path = _npz(path)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        return path

    @classmethod
    def load(cls, path: Path) -> CandidateFilter:
        """Read what :meth:`save` wrote; nothing in the file is ever run.

        Raises
        ------
        DataError
            If the file is missing or damaged, or holds no forest.
        """
        path = _npz(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {field.name: stored[field.name] for field in fields(cls)}
            forest = cls(**arrays)
            forest._require_sound()
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file, train a filter first and save it") from error
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} holds no usable candidate filter ({error}): train and save one") from error
        return forest

    def _require_sound(self) -> None:
        """Children follow their parents within their tree, so that every walk ends in a leaf."""
        kinds = {"names": "U", "threshold": "f", "share": "f", "unknown_left": "b"}
        nodes = self.left.shape
        for field in fields(self):
            array = getattr(self, field.name)
            if array.dtype.kind not in kinds.get(field.name, "i") or array.ndim != 1 or not array.size:
                raise ValueError(f"{field.name} is {array.dtype} {array.shape}")
            if field.name not in ("names", "roots") and array.shape != nodes:
                raise ValueError(f"{field.name} has {array.size} nodes, left {nodes[0]}")
        number = np.arange(nodes[0])
        if self.roots[0] != 0 or (np.diff(self.roots) <= 0).any() or self.roots[-1] >= nodes[0]:
            raise ValueError("the trees do not follow each other")
        end = np.append(self.roots[1:], nodes[0])[np.searchsorted(self.roots, number, side="right") - 1]
        leaf = self.left == -1
        children = np.stack([self.left, self.right])[:, ~leaf]
        if (self.right[leaf] != -1).any() or (children <= number[~leaf]).any() or (children >= end[~leaf]).any():
            raise ValueError("a node leads back or out of its tree")
        asked = self.feature[~leaf]
        # An infinite threshold is one: it asks whether the feature is known.
        if (asked < 0).any() or (asked >= len(self.names)).any() or np.isnan(self.threshold).any():
            raise ValueError("a node asks for no feature")
        if not ((self.share >= 0) & (self.share <= 1 + 1e-9)).all():  # weighted sums are rounded
            raise ValueError("a share is not in [0, 1]")


def _npz(path: Path) -> Path:
    path = Path(path)
    if path.suffix != ".npz":
        raise DataError(f"{path}: a candidate filter is an .npz file, name it so")
    return path


def train_filter(
    features: pd.DataFrame, true: Sequence[bool], *, seed: int, trees: int = TREES
) -> CandidateFilter:
    """Train a random forest to tell true candidates from false ones.

    Both kinds weigh the same in all, however many there are of each. Features that are NaN for all
    candidates are left out.

    Parameters
    ----------
    features : DataFrame
        Of :func:`lits_helpers.candidates.candidate_table`, of patients the filter is not tested on;
        best also of none that the network was trained on, for whom it makes fewer false candidates
        than for others. All columns but :data:`lits_helpers.candidates.NO_FEATURES` are used.
    true : bool sequence (candidates,)
        ``true`` of :func:`lits_helpers.candidates.label_candidates`.
    seed : int
        Equal seeds give equal forests.
    trees : int

    Raises
    ------
    DataError
        If there are not both kinds of candidates, or scikit-learn is not installed.

    References
    ----------
    Breiman, "Random forests", Machine Learning 45 (2001) 5.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise DataError("training a filter needs scikit-learn: pip install 'lits-helpers[survey]'") from error
    true = np.asarray(true, bool)
    if len(true) != len(features):
        raise DataError(f"{len(features)} candidates and {len(true)} labels: give one for each")
    if true.all() or not true.any():
        raise DataError(
            f"{true.sum()} true and {(~true).sum()} false candidates teach nothing: give more patients, or a "
            "prediction that finds some of both"
        )
    names = [name for name in features if name not in NO_FEATURES and features[name].notna().any()]
    forest = RandomForestClassifier(trees, class_weight="balanced", random_state=seed)
    forest.fit(features[names].to_numpy(np.float32), true)
    grown = [tree.tree_ for tree in forest.estimators_]

    def joined(part: str) -> np.ndarray:
        return np.concatenate([getattr(tree, part) for tree in grown])

    sizes = [tree.node_count for tree in grown]
    roots = np.cumsum([0, *sizes[:-1]])
    children = joined("children_left"), joined("children_right")
    left, right = (np.where(own < 0, -1, own + np.repeat(roots, sizes)).astype(np.int32) for own in children)
    return CandidateFilter(
        names=np.array(names), roots=roots.astype(np.int32), left=left, right=right,
        feature=np.where(left < 0, -1, joined("feature")).astype(np.int32), threshold=joined("threshold"),
        unknown_left=joined("missing_go_to_left").astype(bool), share=joined("value")[:, 0, 1],
    )  # fmt: skip


def out_of_fold(
    features: pd.DataFrame, true: Sequence[bool], patients: Sequence, *, seed: int, folds: int = 5
) -> np.ndarray:
    """Probability of each candidate by a forest that has not seen its patient.

    For choosing a threshold on the patients that the filter is trained on.

    Parameters
    ----------
    features, true, seed
        Of :func:`train_filter`.
    patients : sequence (candidates,)
        Whose each candidate is, such as ``features.volume``.
    folds : int
        Groups of patients left out in turn; at most as many as there are patients.

    Returns
    -------
    float64 array (candidates,), in [0, 1]
    """
    true, (of, names) = np.asarray(true, bool), pd.factorize(np.asarray(patients))
    if not 2 <= folds <= len(names):
        raise DataError(f"{folds} folds of {len(names)} patient(s): leave out at least one and keep one")
    fold = np.random.default_rng(seed).permutation(len(names))[of] % folds
    found = np.empty(len(features))
    for number in tqdm(range(folds), "forests", unit="fold", delay=2):
        out = fold == number
        found[out] = train_filter(features[~out], true[~out], seed=seed).probabilities(features[out])
    return found


# What the filter does --------------------------------------------------------------------------


def filter_candidates(tumour: np.ndarray, probabilities: Sequence[float], *, threshold: float) -> np.ndarray:
    """Take the candidates out whose probability is under a threshold.

    Parameters
    ----------
    tumour : bool array (slices, rows, columns)
        The mask whose candidates were described.
    probabilities : float sequence (candidates,)
        Of :meth:`CandidateFilter.probabilities`, in the order of the candidates' numbers.
    threshold : float
        At 0 all stay.

    Returns
    -------
    bool array, same shape
    """
    box = bounding_box(tumour)
    numbered, count = components(tumour[box])
    probabilities = np.asarray(probabilities, float)
    if probabilities.shape != (count,):
        raise DataError(f"the mask has {count} candidates, got {probabilities.size} probabilities: give its own")
    filtered = np.zeros_like(tumour)
    filtered[box] = np.concatenate([[False], probabilities >= threshold])[numbered]
    return filtered


def choose_filter_threshold(true: Sequence[bool], probabilities: Sequence[float]) -> float:
    """The threshold of :data:`THRESHOLDS` whose candidates have the best F1; of equal ones the lowest.

    F1 counts false findings by number, and needs no masks.

    Parameters
    ----------
    true : bool sequence (candidates,)
    probabilities : float sequence (candidates,)
        By a filter that has not seen these patients: of validation patients, or out of fold.
    """
    true, probabilities = np.asarray(true, bool), np.asarray(probabilities, float)
    if true.shape != probabilities.shape:
        raise DataError(f"{true.size} candidates and {probabilities.size} probabilities: give one for each")
    scores = []
    for threshold in THRESHOLDS:
        kept = probabilities >= threshold
        right = int((true & kept).sum())
        scores.append(LesionCounts(int(true.sum()), right, int(kept.sum()), right).f1)
    return THRESHOLDS[int(np.argmax(scores))]
