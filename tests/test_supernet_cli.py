"""``nas supernet`` and ``nas specialize``, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from elastic import DESCRIPTION, elastic, one_shot
from safetensors.torch import load_file
from test_cli import nas  # noqa: F401  (a fixture)

from nas.cost import count
from nas.data import digits
from nas.space import network, parse
from nas.supernet.files import load_supernet, share
from nas.training import evaluate

CONFIG = {
    "data": "digits",
    "space": DESCRIPTION,
    "supernet": {"settings": {"epochs": 2, "batch_size": 128, "learning_rate": 0.1}},
}
SUPERNET = "net/supernet.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a configuration, and with the supernet of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.yaml").write_text(yaml.safe_dump(CONFIG))
    one_shot(folder / SUPERNET).fit()
    share(folder / SUPERNET)
    return folder


@pytest.fixture
def here(made, tmp_path, nas):  # noqa: F811
    """A copy of that folder to work in."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


# ------------------------------------------------------------------------------------- train


def test_trained_again_nothing_is_left_to_do(here, nas):  # noqa: F811
    before = (here / SUPERNET).read_bytes()
    done = nas("supernet", "train", "net.yaml", "--out", "net", "--json")
    assert done.code == 0, done.err
    assert "epoch" not in done.err
    facts = json.loads(done.out)
    assert (here / SUPERNET).read_bytes() == before
    assert facts["bytes"] == len(before)
    assert facts["epochs"] == 2
    assert facts["seconds"] > 0
    other = nas("supernet", "train", "net.yaml", "--out", "net", "--set", "supernet.seed=3")
    assert other.code == 2
    assert "seed is 0 there and 3 here" in other.err


def test_a_training_that_was_killed_goes_on_to_the_same_bits(here, nas, monkeypatch):  # noqa: F811
    from nas.supernet import checkpoint

    saved = checkpoint.files.write

    def killed(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.files, "write", killed)
        done = nas("supernet", "train", "net.yaml", "--out", "again")
    assert done.code == 130
    assert "the same command goes on" in done.err
    for arguments in (("score",), ("specialize", "--limit", "macs=1e5", "--out", "x")):
        words = [*arguments[:1], "again/supernet.safetensors", *arguments[1:]]
        refused = nas(*(["supernet"] if words[0] == "score" else []), *words)
        assert refused.code == 2
        assert "not done: epoch 1 of 2" in refused.err
    assert "epoch 1 of 2" not in nas("supernet", "show", SUPERNET).out
    assert "1 of 2: not done" in nas("supernet", "show", "again/supernet.safetensors").out
    done = nas("supernet", "train", "net.yaml", "--out", "again")
    assert done.code == 0, done.err
    assert "epoch 1 of 2" not in done.err
    assert "epoch 2 of 2, loss" in done.err
    assert "written: again/supernet.safetensors" in done.out
    whole, again = (load_supernet(here / name) for name in (SUPERNET, f"again/{SUPERNET[4:]}"))
    assert whole.digest == again.digest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("supernett.seed=1", "unknown key 'supernett': did you mean 'supernet'"),
        ("supernet.sampling=unifrom", "'uniform'"),
        ("supernet.smapling=fair", "no argument 'smapling': did you mean 'sampling'"),
        ("supernet.checkpoint=here", "'checkpoint' is not set here"),
        ("space.input=[3,8,8]", "takes"),
        ("data=digitz", "did you mean 'digits'"),
    ],
)
def test_configurations_that_are_wrong_are_refused(here, nas, settings, says):  # noqa: F811
    done = nas("supernet", "train", "net.yaml", "--out", "other", "--set", settings)
    assert done.code == 2
    assert says in done.err
    assert not (here / "other").exists()


def test_show_says_what_is_in_the_file(here, nas):  # noqa: F811
    facts = json.loads(nas("supernet", "show", SUPERNET, "--json").out)
    shared = load_supernet(here / SUPERNET)
    assert facts["parameters"] == sum(p.numel() for p in shared.supernet.parameters())
    assert facts["tensors"] == len(shared.supernet.state_dict())
    assert facts["space"] == "mbconv/v1"
    assert facts["data"] == {"name": "digits"}
    assert facts["preprocessing"]["scale"] == 16.0
    assert facts["digest"] == shared.digest
    assert facts["sampling"] == "uniform"
    assert "mbconv/v1" in nas("supernet", "show", SUPERNET).out
    assert nas("supernet", "show", "nowhere").code == 2


# ------------------------------------------------------------------------- score, specialise


def test_score_and_specialise(here, nas):  # noqa: F811
    refused = nas("specialize", SUPERNET, "--limit", "macs=1e5", "--out", "found")
    assert refused.code == 2
    assert f"'nas supernet score {SUPERNET} --rows 300' makes it" in refused.err

    scored = nas("supernet", "score", SUPERNET, "--rows", "12", "--recalibration", "2")
    assert scored.code == 0, scored.err
    assert re.search(r"Kendall τ -?\d", scored.out)
    rows = (here / "net/supernet.scores.jsonl").read_text().splitlines()
    assert len(rows) == 13
    again = nas("supernet", "score", SUPERNET, "--rows", "14", "--recalibration", "2", "--json")
    assert json.loads(again.out)["rows"] == 14
    assert (here / "net/supernet.scores.jsonl").read_text().splitlines()[:13] == rows
    assert (here / "net/supernet.surrogate.npz").exists()

    # One limit of a family cannot be met: the others are delivered all the same.
    limits = ["macs=1e5", "parameters=5000,weight_bytes=22000", "peak_memory_bytes=10"]
    options = [word for limit in limits for word in ("--limit", limit)]
    options += ["--out", "found", "--trials", "30", "--check", "2", "--recalibration", "2"]
    done = nas("specialize", SUPERNET, *options, "--strategy", "random", "--finetune", "1")
    assert done.code == 2
    assert re.search(
        r"peak_memory_bytes must be at most 10 and the smallest found is \d+", done.err
    )
    assert "fine-tuned" in done.out
    document = json.loads((here / "found/family.json").read_text())
    assert document["strategy"] == "random"
    assert len(document["networks"]) == 2
    assert len(document["unmet"]) == 1
    space = elastic()
    for told in document["networks"]:
        built = network(space, parse(space, told["architecture"]))
        built.load_state_dict(load_file(here / "found" / told["folder"] / "model.safetensors"))
        counted = count(built, space.input)
        for metric, limit in told["limits"].items():
            assert getattr(counted, metric) == told["costs"][metric] <= limit
        accuracy, _ = evaluate(built.eval(), digits().test)
        assert accuracy == told["fine_tuned_test_accuracy"]
        assert (here / "found" / told["folder"] / "model.py").exists()
    assert "python found/macs_100000/model.py" in done.out
    assert (here / "found/family.png").exists()


def test_specialise_scores_first_where_it_is_asked_to(here, nas):  # noqa: F811
    done = nas(
        *("specialize", SUPERNET, "--score", "10", "--limit", "macs=2e5", "--out", "found"),
        *("--trials", "20", "--check", "1", "--recalibration", "2", "--data", "digits", "--json"),
    )
    assert done.code == 0, done.err
    assert "Kendall" in done.err
    document = json.loads(done.out)
    assert document["unmet"] == {}
    assert document["networks"][0]["costs"]["macs"] <= 2e5
    assert (here / "net/supernet.surrogate.npz").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--limit", "mac=1e5"], "did you mean 'macs'"),
        (["--limit", "latency_ms=3"], "needs a latency table of 'mbconv/v1' (--table)"),
        (["--limit", "macs=1e5", "--predictor", "none.npz"], "there is no surrogate 'none.npz'"),
        (["--limit", "macs=1e5", "--data", "{name: digitz}"], "did you mean 'digits'"),
        (["--limit", "macs=1e5", "--data", "{"], "not YAML"),
        (["--limit", "macs=1e5", "--score", "10", "--predictor", "a"], "not both"),
        (["--limit", "macs=1e5", "--table", "none.json"], "none.json cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(here, nas, words, says):  # noqa: F811
    done = nas("specialize", SUPERNET, *words, "--out", "found")
    assert done.code == 2
    assert says in done.err
    assert not (here / "found").exists()


def test_scores_survive_a_kill(here, nas):  # noqa: F811
    words = ["supernet", "score", SUPERNET, "--recalibration", "2", "--out", "scores.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *words, "--rows", "700"],
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    scores = here / "scores.jsonl"
    try:
        while not scores.exists() or scores.read_bytes().count(b"\n") < 6:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = scores.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    rows = whole.count(b"\n") - 1
    assert 5 <= rows < 700
    done = nas(*words, "--rows", str(max(10, rows + 2)))
    assert done.code == 0, done.err
    assert scores.read_bytes().startswith(whole)
    assert scores.read_bytes().count(b"\n") - 1 == max(10, rows + 2)
