"""The marks of a class: what a table says of the notebooks that students sent, under any name."""

import csv
import re

import marks
import nbformat
import pytest
from exercise_answers import verdict
from notebook_files import ROOT

from course_utils.exercises import exercises

KEYS = ["01.kl", "01.sum_mean", "01.aggregate", "01.laplace"]


def sent(path, notebook="01_vae_recap", printed=None, **cells):
    """Write what a student sent: `printed` by the checks, by key; `cells` with another source."""
    read = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4)
    for key, cell in marks.tagged(read, "check").items():
        if printed is not None:
            text = printed.get(key)
            cell.outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
    for kind, source in cells.items():
        for cell in marks.tagged(read, kind).values():
            cell.source = source
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(read, path)
    return path


def right(key):
    return verdict(key, lambda *arguments: exercises()[key].reference(*arguments))[1]


@pytest.fixture
def folder(tmp_path):
    """Of eight students, and of what else such a folder holds."""
    folder, fine = tmp_path / "sent", {key: right(key) for key in KEYS}
    sent(folder / "ana" / "01_vae_recap.ipynb", printed=fine)
    wrong = verdict("01.kl", lambda mu, logvar: mu.sum(1))[1]
    again = verdict("01.laplace", exercises()["01.laplace"].reference)[1]  # only its check ran
    sent(folder / "bob.ipynb", printed=fine | {"01.kl": wrong, "01.laplace": again})
    whole = sent(folder / "chloé" / "TP (1).ipynb", printed=fine)
    read = nbformat.read(whole, 4)
    for cell in read.cells:
        cell.metadata = {}  # tags were lost
        cell.source = re.sub(r"# (hint.*\))", r"\1  #", cell.source)  # as invited to
    read.cells = [cell for cell in read.cells if "01.laplace" not in cell.source]  # deleted
    nbformat.write(read, whole)
    sent(folder / "dan.ipynb", printed=fine, check='print("✔ 01.kl : yes"); verify("01.kl", kl)')
    sent(folder / "eve.ipynb", "en/01_vae_recap")
    sent(folder / "fay.ipynb", printed={})
    (folder / "gus.ipynb").write_text((folder / "bob.ipynb").read_text()[:2000])
    (folder / "hal.ipynb").touch()
    (folder / "report.pdf").write_bytes(b"%PDF-1.7 \xff")
    nbformat.write(nbformat.v4.new_notebook(), folder / "other.ipynb")
    (folder / "list.ipynb").write_text("[1, 2]")
    sent(folder / "ana" / ".ipynb_checkpoints" / "01_vae_recap-checkpoint.ipynb")
    return folder


def test_each_student_has_a_line_whatever_was_sent(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(marks, "MEGABYTES", 5)
    (folder / "huge.ipynb").write_text("[" + "0," * 3_000_000 + "0]")
    marks.main([str(folder), "--csv", str(tmp_path / "marks.csv")])
    with open(tmp_path / "marks.csv", encoding="utf-8-sig", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    states = {name: [row[key] for key in KEYS] for name, row in rows.items()}
    assert states == {
        "ana/01_vae_recap.ipynb": ["✔", "✔", "✔", "✔"],
        "bob.ipynb": ["✘", "✔", "✔", "not run"],
        "chloé/TP (1).ipynb": ["✔", "✔", "✔", "changed"],
        "dan.ipynb": ["changed"] * 4,
        "eve.ipynb": ["empty"] * 4,
        "fay.ipynb": ["not run"] * 4,
    } | {name: [""] * 4 for name in rows if rows[name]["not read"]}
    refused = ["gus.ipynb", "hal.ipynb", "huge.ipynb", "list.ipynb", "other.ipynb", "report.pdf"]
    assert [name for name in rows if rows[name]["not read"]] == refused
    totals = dict(re.findall(r"(?m)^  (✔|changed) +(.*)", capsys.readouterr().out))
    assert totals["✔"].split() == ["2", "3", "3", "1"]
    assert totals["changed"].split() == ["1", "1", "1", "2"]


def test_an_edited_output_is_seen_when_the_answers_are_run_again(tmp_path):
    claimed = {"00.bits": right("00.bits")}
    answer = "more = 1\nbits = lambda nats: nats + more"
    wrong = sent(tmp_path / "wrong.ipynb", "00_accueil", claimed, exercise=answer)
    assert marks.marks(wrong) == {"00.bits": "✔"} and marks.marks(wrong, True) == {"00.bits": "✘"}


def test_an_answer_with_helpers_of_its_own_is_run_with_them(tmp_path):
    merged = "def bits(nats):\n    return in_bits(nats)\nverify('00.bits', bits)"
    path = sent(tmp_path / "merged.ipynb", "00_accueil", exercise="", check=merged)
    read = nbformat.read(path, 4)
    helpers = "import numpy as np\nlarge = train()\ndef in_bits(nats):\n    return nats / np.log(2)"
    read.cells.insert(4, nbformat.v4.new_code_cell(helpers))
    nbformat.write(read, path)
    assert marks.marks(path) == {"00.bits": "changed"}
    assert marks.marks(path, run=True) == {"00.bits": "✔"}
