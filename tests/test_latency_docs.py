"""The commands and configurations about latency, in the README and on its page, run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from test_cli import nas  # noqa: F401  (a fixture)

from nas.latency.table import LatencyTable

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "latency.md").read_text()
SHOWN = "proxylessnas --set classes=10 input=3x64x64"
SMALL = "chain --set input=1x8x8 depths=[1,2,3] kernels=[1,3] widths=[4] strides=[1] dense=[0]"


def commands(text: str) -> list[str]:
    """The ``nas latency`` lines of its first block that has some."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    first = next(block for block in blocks if "nas latency" in block)
    return [line for line in first.splitlines() if line.startswith("nas latency")]


def test_the_commands_and_the_configuration_run_on_a_small_space(nas, tmp_path):  # noqa: F811
    shown = commands(README)
    assert len(shown) == 3
    assert commands(PAGE) == shown[:2]
    for command in shown:
        small = command.replace(SHOWN, SMALL).replace("--n 100", "--n 20")
        if "profile" in command:
            assert SHOWN in command
            small += " --backend torch --seconds 0.01"
        if "pack" in command:
            small += " --networks 1"
        done = nas(*shlex.split(small)[1:])
        assert done.code == 0, small + done.err
    table = LatencyTable.load(tmp_path / "table.json")
    assert table.correction is not None

    config = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[0])
    assert config["space"]["name"] in SHOWN
    words = SMALL.split(" --set ")[1].split()
    config["space"] = {"name": "chain"} | {
        key: [1, 8, 8] if key == "input" else yaml.safe_load(value)
        for key, value in (word.split("=") for word in words)
    }
    training = next(one for one in config["evaluator"] if one["name"] == "training")
    training |= {"epochs": 1, "data_fraction": 0.1}
    config |= {"data": "digits", "strategy": "random", "budget": {"trials": 2}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = nas("search", "run.yaml", "--out", "found")
    assert done.code == 0, done.err
    assert "latency_ms" in nas("show", "found").out
