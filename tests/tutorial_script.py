"""A page of the documentation as one shell script: what a reader who follows it literally does."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(
    r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)


def script(page: Path, skip: int = 0, passing: tuple[str, ...] = ()) -> str:
    """All blocks of a page in order: files by their names are written, commands are run.

    Args:
        skip: how many of the first bash blocks are left out.
        passing: languages of blocks that are only shown.

    Raises:
        ValueError: a block is neither a file nor commands.
    """
    lines = ["set -euo pipefail"]
    for block in BLOCK.finditer(page.read_text()):
        name, language, text = block["file"], block["language"], block["text"]
        if name:
            lines.append(f"cat > {name} <<'END OF THE FILE'\n{text}END OF THE FILE")
        elif language == "bash":
            skip -= 1
            if skip < 0:
                lines.append(text)
        elif language not in passing:
            raise ValueError(f"{page.name}: what is to be done with this?\n{text}")
    return "\n".join(lines) + "\n"
