"""What several test modules know about the notebooks."""

from pathlib import Path

from marks import tagged  # noqa: F401

ROOT = Path(__file__).parents[1]
PRINT_DURATIONS = ("three-times", "sample-speed", "contenders", "caching")  # cells, by their id
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def printed(cell):
    """Everything a reader of the repository sees as text under a code cell."""
    texts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type in ("execute_result", "display_data"):
            texts.append(output.data.get("text/plain", ""))
    return "\n".join(texts)
