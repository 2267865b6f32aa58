"""docs/elastic.md: its commands and its script, run from a data set to three exported networks."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from exporting import isolated
from safetensors.torch import load_file
from test_cli import nas  # noqa: F401  (a fixture)

from nas.components import create
from nas.data import digits
from nas.latency.files import read
from nas.space import network, parse
from nas.specialize.drawing import tilted
from nas.training import evaluate

PAGE = (Path(__file__).parents[1] / "docs" / "elastic.md").read_text()
LIMITS = ("latency_ms=0.5", "latency_ms=0.7", "latency_ms=1")
SMALLER = (
    ("(1, 2, 3)", "(1, 2)"),
    ("epochs: 30", "epochs: 1"),
    ("--rows 100", "--rows 10"),
    ("rows=100", "rows=10"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def smaller(text: str) -> str:
    for old, new in SMALLER:
        text = text.replace(old, new)
    return text


def limits_here(folder: Path) -> dict[str, str]:
    """The page's limits are of the machine it was written on: others for this one's table."""
    import numpy as np

    space = create("spaces", "small_mobile:space", "space")
    table = read(folder / "table.json", space)
    rng = np.random.default_rng(0)
    low, high = (table.predict(space, tilted(space, level, rng)) for level in (0, 1))
    shares = (0.1, 0.3, 0.6)
    return {
        shown: f"latency_ms={low + share * (high - low):.6f}"
        for shown, share in zip(LIMITS, shares, strict=True)
    }


def test_the_page_runs_from_data_to_three_networks(nas, tmp_path):  # noqa: F811
    definition, script = blocks("python")
    (tmp_path / "small_mobile.py").write_text(smaller(definition))
    (config,) = blocks("yaml")
    assert any(old in config for old, _ in SMALLER)
    (tmp_path / "elastic.yaml").write_text(smaller(config))
    *commands, last = blocks("bash")[0].splitlines()
    assert [line.split()[1] for line in commands] == [
        *("supernet", "supernet", "latency", "specialize")
    ]
    found: dict[str, str] = {}
    for command in commands:
        command = smaller(command)
        if "profile" in command:
            command += " --seconds 0.01"
        if "specialize" in command:
            found = limits_here(tmp_path)
            assert all(shown in command for shown in found)
            for shown, here in found.items():
                command = re.sub(rf"{shown}\b(?!\.)", here, command)
            command = command.replace("--finetune 5", "--finetune 1 --trials 10 --check 1")
        done = nas(*shlex.split(command)[1:])
        assert done.code == 0, command + done.err
    document = json.loads((tmp_path / "found" / "family.json").read_text())
    assert len(document["networks"]) == 3
    space = create("spaces", "small_mobile:space", "space")
    for told, limit in zip(document["networks"], found.values(), strict=True):
        assert told["costs"]["latency_ms"] <= float(limit.partition("=")[2])
        # Which networks they are depends on this machine's latencies, and so does how good.
        tuned = network(space, parse(space, told["architecture"]))
        weights = tmp_path / "found" / told["folder"] / "model.safetensors"
        tuned.load_state_dict(load_file(weights))
        assert told["fine_tuned_test_accuracy"] == evaluate(tuned.eval(), digits().test)[0]
    first = Path("found", document["networks"][0]["folder"], "model.py")
    assert last == "python found/latency_ms_0.5/model.py"
    done = isolated(str(first), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    for shown, here in found.items():
        assert f'"{shown}"' in script
        script = script.replace(f'"{shown}"', f'"{here}"')
    script = smaller(script).replace("table=", "trials=10, check=1, table=")
    names: dict[str, object] = {}
    exec(compile(script, "elastic.md", "exec"), names)
    assert len(names["family"]) == 3
    again = json.loads((tmp_path / "again" / "family.json").read_text())
    for one, told in zip(again["networks"], document["networks"], strict=True):
        assert one["architecture"] == told["architecture"]
        assert one["test_accuracy"] == told["test_accuracy"]
