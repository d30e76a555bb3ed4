"""Run notebooks from top to bottom and keep their outputs: `python3 course.py refresh NAME…`.

What changes from one run to the next and helps no reader is left out: timings, the state of the
widgets, progress bars stopped at 0 %.

`python3 course.py weights NAME…` runs them too, and keeps the weights of the models they train
(`data/weights/`) instead of the outputs.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# The numbers of the course are those of the embedded digits on one thread.
os.environ |= {"COURSE_THREADS": "1", "COURSE_DATASET": "digits", "COURSE_PRETRAINED": "0"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path):
    """The notebook, executed."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": path.parent}},
    )
    return client.execute()


def refresh(path):
    notebook = run(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merge_streams(o for o in cell.outputs if not is_progress_bar(o))
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def is_progress_bar(output):
    data = output.get("data", {})
    return WIDGET in data and "image/png" not in data  # a demo also has a still picture


def merge_streams(outputs):
    """One text per stream: how a kernel cuts its prints into messages is a matter of timing."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def record_weights(path):
    os.environ["COURSE_PRETRAINED"] = "record"  # the kernel inherits it
    run(path)
    print(f"{path.name}: weights written")


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    for name in names:
        {"refresh": refresh, "weights": record_weights}[what](Path(name))
