"""The experiments with elastic supernets run, and go on where they were."""

from __future__ import annotations

import json

import pytest
from test_experiments import run

from nas.data import fashion_mnist
from nas.errors import DataError


@pytest.fixture
def images():
    try:
        fashion_mnist()
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_one_supernet_beside_networks_trained_alone(images, tmp_path):
    arguments = (
        "--images", "400", "--test-images", "200", "--epochs", "1", "--uniform-epochs", "2",
        "--networks", "3", "--score", "12", "--trials", "60", "--fine-tune", "1",
    )  # fmt: skip
    run("elastic_supernet.py", *arguments, cwd=tmp_path)
    folder = tmp_path / "runs" / "elastic_supernet"
    page = (folder / "page.md").read_text()
    for way in ("sandwich, 1 epochs", "the same, fine-tuned for 1", "uniform, 2 epochs"):
        assert f"| {way} |" in page
    assert (folder / "page.png").exists()
    alone = (folder / "alone.json").read_text()
    assert len(json.loads(alone)) in (2, 3)
    again = run("elastic_supernet.py", *arguments, cwd=tmp_path)
    assert "epoch" not in again.split("# One elastic")[0]
    assert (folder / "alone.json").read_text() == alone


@pytest.mark.slow
def test_sampling_rules_are_compared_at_equal_cost(images, tmp_path):
    arguments = (
        "--images", "400", "--test-images", "200", "--epochs", "1", "--networks", "3",
        "--seeds", "2",
    )  # fmt: skip
    run("elastic_sampling.py", *arguments, cwd=tmp_path)
    page = (tmp_path / "runs" / "elastic_sampling" / "page.md").read_text()
    rows = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines() if " ± " in line}
    assert set(rows) == {"| uniform", "| sandwich", "| progressive"}
    cost = [float(row[3]) for row in rows.values()]
    assert max(cost) <= 1.4 * min(cost) + 0.011  # whole epochs, and few of them
