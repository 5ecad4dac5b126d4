"""Mutated files give the page an error of one line, or the right pixels, in little time."""

from page_samples import needs_node

from benchmarks.fuzz import page


@needs_node
def test_mutated_files(tmp_path):
    """More of them: ``python -m benchmarks.fuzz.page``."""
    report = page.run(60, 7, tmp_path / "failure.cvae")
    assert sum(report["outcomes"].values()) == 60
    assert report["outcomes"]["an error"] < 60
