"""The notebook runs from start to end, and was committed with its outputs."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

PATH = ROOT / "examples" / "codec_tour.ipynb"


def test_the_tour_runs():
    notebook = nbformat.read(PATH, as_version=4)
    committed = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in committed)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": PATH.parent}}
    ).execute()
    printed = "".join(
        output.text
        for cell in committed
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert "10000 images in" in printed
    assert "image 1234 is a 4" in printed
