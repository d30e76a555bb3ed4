"""Settings for the tests and for the notebooks' kernels, which inherit this environment."""

import os
from pathlib import Path

ROOT = Path(__file__).parent

# The other languages say the same: tests/kernels/ runs them, without training.
collect_ignore_glob = ["notebooks/*/*.ipynb"]

# The committed outputs are those of the embedded digits on one thread. Each training begins, must
# learn, and is then spared (COURSE_PRETRAINED=0 trains to the end, as students do).
os.environ |= {"COURSE_THREADS": "1", "COURSE_LANG": "fr"}
os.environ.setdefault("COURSE_PRETRAINED", "try")
os.environ.setdefault("COURSE_DATASET", "digits")


def pytest_configure(config):
    # An absolute path: nbval would look for a relative one in the current directory.
    config.option.nbval_sanitize_with = str(ROOT / "tests" / "nbval_sanitize.cfg")
