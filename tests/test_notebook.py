"""The notebook runs from start to end, and was committed with its outputs."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

PATH = ROOT / "examples" / "codec_tour.ipynb"


def printed(notebook):
    """What each cell of code prints."""
    return [
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_tour_runs_and_prints_what_was_committed():
    """Bytes of files among it: the outputs are of the format as it is now."""
    notebook = nbformat.read(PATH, as_version=4)
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    committed = printed(notebook)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": PATH.parent}}
    ).execute()
    assert printed(notebook) == committed, "execute it again: jupyter nbconvert --execute --inplace"
    assert "10000 images in" in "".join(committed)
    assert "image 1234 is a 4" in "".join(committed)
