"""All benchmarks, one after another, each in a process of its own.

    python -m benchmarks [--json FILE] [--quick] [--parts train_step,growth]

Runs unattended: a part that fails is reported at the end and stops no other, a peer that is not
installed is skipped with a word. The last thing printed is the table of all rows.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Findings, Row, add_options, from_json, say, to_table
from s2s_jax.lab.base.files import read_json, write_json

PARTS = (
    "train_step",
    "methods",
    "growth",
    "input_pipeline",
    "start_up",
    "sweep_jobs",
    "population",
    "torch_loop",
    "opennmt",
)


def run_part(part: str, arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Runs one part; the content of its JSON, or {"failed": the last line that it said}."""
    output = folder / f"{part}.json"
    command = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(output), *arguments]
    last = ""
    with subprocess.Popen(
        command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            last = line.strip() or last
    return read_json(output) if process.returncode == 0 else {"failed": last}


def rows_of(part: str, content: dict[str, Any]) -> list[Row]:
    """The rows of a part; one that says why, where there are none."""
    if "failed" in content:
        return [Row(part, None, note=f"failed: {content['failed']}")]
    findings: Findings = from_json(content)
    if findings.skipped:
        return [Row(part, None, note=f"skipped: {findings.skipped}")]
    return findings.rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="write everything that was found to this file")
    given = parser.parse_args()
    parts = [part.strip() for part in given.parts.split(",") if part.strip()]
    for part in parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    arguments = [f"--peers={given.peers.absolute()}"]
    arguments += ["--quick"] if given.quick else []
    arguments += [f"--rounds={given.rounds}"] if given.rounds else []
    contents: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for part in parts:
            say(f"── {part}")
            contents[part] = run_part(part, arguments, Path(temporary))
            if given.json:  # after each, so that what was found is kept
                write_json(given.json, {"quick": given.quick, "parts": contents})
    print(to_table([row for part in parts for row in rows_of(part, contents[part])]))
    failed = [part for part, content in contents.items() if "failed" in content]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
