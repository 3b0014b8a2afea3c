"""What each figure of an evaluation is, in a sentence: heads of columns and the glossary of the page."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CAPTIONS", "TERMS", "Term"]


class Term(NamedTuple):
    """The ``head`` of a column, and its ``definition``."""

    head: str
    definition: str


TERMS = {
    "true": Term("true px", "Reference pixels of the class."),
    "predicted": Term("map px", "Pixels with a reference that the map gives to the class."),
    "pixels": Term("pixels", "Pixels that were compared: those with a reference of this level or deeper."),
    "iou": Term(
        "IoU", "Intersection over union: pixels of the class in both map and reference, over those in either."
    ),
    "f1": Term(
        "F1",
        "Harmonic mean of precision and recall (Dice): twice the common pixels over the sum of both sides.",
    ),
    "precision": Term("precision", "User's accuracy: share of the map's pixels of the class that are right."),
    "recall": Term(
        "recall", "Producer's accuracy: share of the class's reference pixels that the map found."
    ),
    "mean_iou": Term("mIoU", "Mean IoU of the classes that have pixels in map or reference."),
    "mean_f1": Term("mF1", "Mean F1 of the classes that have pixels in map or reference."),
    "pixel_accuracy": Term(
        "accuracy", "Share of the compared pixels that are right; a pixel without prediction is wrong."
    ),
    "mean_accuracy": Term("mean recall", "Mean recall of the classes that have reference pixels."),
    "frequency_weighted_iou": Term(
        "fwIoU", "IoU averaged over the classes by their share of the reference (Long et al. 2015)."
    ),
    "kappa": Term(
        "kappa",
        "Agreement beyond what the classes' shares would give by chance (Cohen 1960): 1 is perfect, 0 chance.",
    ),
    "quantity_disagreement": Term(
        "quantity",
        "Share of pixels wrong because the map has too much or too little of a class (Pontius and "
        "Millones 2011).",
    ),
    "allocation_disagreement": Term(
        "allocation", "Share of pixels wrong because classes are right in amount and in the wrong place."
    ),
    "boundary_iou": Term(
        "Boundary IoU",
        "IoU of the bands of pixels that lie within the tolerance of another class (Cheng et al. 2021). "
        "Neither no data nor the scene's edge is another class.",
    ),
    "boundary_f1": Term(
        "Boundary F1",
        "Harmonic mean of two shares: of the map's boundary pixels that have one of the reference's, of the "
        "same class, within the tolerance; and the other way round (Csurka et al. 2013).",
    ),
    "hierarchical_distance": Term(
        "hierarchical distance",
        "Mean number of steps in the class tree from the predicted class to the true one.",
    ),
    "mistake_severity": Term(
        "mistake severity",
        "Of wrong pixels, mean height above the leaves of the lowest class that holds both the "
        "predicted and the true one: 1 is a mistake between siblings.",
    ),
    "hierarchical_precision": Term(
        "hierarchical precision",
        "Share of the predicted classes, each counted with all above it, that are right "
        "(Kiritchenko et al. 2006).",
    ),
    "hierarchical_recall": Term(
        "hierarchical recall",
        "Share of the true classes, each counted with all above it, that were predicted.",
    ),
    "hierarchical_f1": Term("hierarchical F1", "Harmonic mean of hierarchical precision and recall."),
    "mean_level": Term(
        "mean level", "Mean level of the predicted classes: 1 is the top, undecided counts 0."
    ),
    "right": Term(
        "right",
        "Share of the predicted pixels whose class is the true one, contains it, or lies in a coarser truth.",
    ),
    "wrong": Term(
        "wrong", "Share of the predicted pixels whose class is none of these: what conformal:α bounds."
    ),
    "undecided": Term(
        "undecided", "Share of the pixels for which not even a class of level 1 was sure enough."
    ),
    "incoherence_rate": Term(
        "incoherence", "Share of the pixels whose class at some level is not an ancestor of the decided one."
    ),
    "confidence": Term("confidence", "Mean probability that the map gave for its class."),
    "correct": Term("correct", "Share of the pixels whose decided class is the true one or lies above it."),
    "ece": Term(
        "ECE",
        "Expected calibration error: mean distance between confidence and share right, over 20 bins of confidence, "
        "by their pixels (Guo et al. 2017).",
    ),
    "mce": Term("MCE", "The largest distance between confidence and share right in any of the bins."),
    "overconfidence": Term(
        "overconfidence", "Mean confidence less the share right: above 0, the map is too sure."
    ),
    "tau": Term(
        "threshold τ", "A class is given only where its probability is at least τ; else the class above it."
    ),
    "specificity": Term(
        "specificity", "Mean level of the decided class over the level of the full decision."
    ),
    "decided": Term("decided", "Share of the pixels that are given any class."),
    "objects_true": Term("true", "Polygons of the class in the reference."),
    "objects_predicted": Term("map", "Polygons of the class in the map."),
    "matched": Term(
        "matched",
        "Pairs of polygons of the same class with an IoU of at least the threshold, each used once.",
    ),
    "objects_precision": Term("precision", "Share of the map's polygons that are matched."),
    "objects_recall": Term("recall", "Share of the reference's polygons that are matched."),
    "objects_f1": Term("F1", "Harmonic mean of precision and recall of polygons."),
    "mean_match": Term("mean IoU", "Mean IoU of the matched pairs."),
    "panoptic_quality": Term(
        "PQ",
        "Panoptic quality: sum of the matches' IoU over matches and half of the unmatched polygons of both sides "
        "(Kirillov et al. 2019).",
    ),
    "mapped": Term("mapped", "Area of the class in the whole map."),
    "estimated": Term(
        "estimated",
        "Area of the class on the ground, from the map's area and its errors in the reference, with its "
        "95 % interval (Olofsson et al. 2014).",
    ),
    "users": Term(
        "user's accuracy", "Share of the class's mapped area that is right, with its 95 % interval."
    ),
    "producers": Term(
        "producer's accuracy", "Share of the class's true area that was mapped, with its 95 % interval."
    ),
    "adjusted_accuracy": Term(
        "area-adjusted accuracy",
        "Share of the whole map's area that is right, estimated by class, with its 95 % interval "
        "(Olofsson et al. 2014).",
    ),
}

CAPTIONS = {
    "matrix": "Confusion matrix: of the pixels of each true class (row), the percentage that the map gives to each "
    "class (column); the diagonal is right. Below half a percent a field is empty. Lines part the classes of level 1.",
    "reliability": "Reliability: the share of right pixels in each bin of confidence. On the dashed line the map is "
    "right as often as it says; below it, it is too sure. Hollow points hold less than 0.1 % of the pixels.",
    "backoff": "Left: what correctness is gained by giving up specificity. Right: the same by threshold.",
}
