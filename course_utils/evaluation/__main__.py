"""`python -m course_utils.evaluation` trains the digit classifier and rewrites its weights."""

import argparse
from pathlib import Path

from ..data import load
from ..weights import save_weights
from .classifier import CLASSIFIER_PATH, train_classifier

parser = argparse.ArgumentParser(description="Train the digit classifier, write its weights.")
parser.add_argument("--steps", type=int, default=6000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=CLASSIFIER_PATH)
options = parser.parse_args()
sources = load("digits"), load("mnist")
model, accuracy = train_classifier(*sources, steps=options.steps, seed=options.seed)
save_weights(model, options.out, accuracy=accuracy, steps=options.steps, seed=options.seed)
print(f"{options.out}: {accuracy}")
