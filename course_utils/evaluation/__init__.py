"""Judging the models: comparison tables, a classifier, measured attributes, exact small sums."""

from .attributes import measure_attributes
from .classifier import (
    CLASSIFIER_PATH,
    DigitClassifier,
    label_fidelity,
    legible_share,
    load_classifier,
    train_classifier,
)
from .exact import (
    best_diagonal_gaussian,
    enumerate_images,
    grid_posterior,
    measured_dependencies,
    receptive_field,
    total_probability,
)
from .tables import ComparisonTable, Table, on_digits

__all__ = [
    "CLASSIFIER_PATH",
    "ComparisonTable",
    "DigitClassifier",
    "Table",
    "best_diagonal_gaussian",
    "enumerate_images",
    "grid_posterior",
    "label_fidelity",
    "legible_share",
    "load_classifier",
    "measure_attributes",
    "measured_dependencies",
    "on_digits",
    "receptive_field",
    "total_probability",
    "train_classifier",
]
