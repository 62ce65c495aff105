"""Hostile names have no effect on a terminal, a table or a folder."""

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from s2s_jax.lab.base.markup import csv_cell, latex, latex_comment, latex_row, markdown, visible
from s2s_jax.lab.comparison import difference_plots, plots
from s2s_jax.lab.comparison.comparison import write_comparison
from tests.lab.comparison.test_comparison import metrics_of, write_run

HOSTILE = [
    r"\input{/etc/passwd}",
    "$^~{}%#&_",
    "=HYPERLINK(A1)",
    "..",
    "/etc/x",
    "a|b`c`<img src=x onerror=y>[d](http://e)",
    "red\x1b[31m\x9b2J\u202e\r\n% \\end{tabular}",
    "half \ud800",
    "nul\0",
    "long" * 90,
    "@sum",
    "$\\frac$",
]

METRICS = ["own/wer", r"own/=1+1\x1b[31m"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A sweep whose rows have hostile names, and the text that its comparison printed."""
    root = tmp_path_factory.mktemp("sent") / "sweep"
    for number, name in enumerate(["teacher_forcing", *HOSTILE]):
        for seed in range(2):
            found = metrics_of(30.0 + number + seed) | {"test/own/=1+1\x1b[31m": 1.0}
            path = write_run(root, name, seed, found, f"row_{number}/seed_{seed}")
            row = {"source": "\x1b[2J\ud800", "references": ["a"], "hypothesis": "ab"[number % 2]}
            (path / "predictions_test.jsonl").write_text(json.dumps(row) + "\n")
    failed = write_run(root, "linear", 9, {}, status="failed", error="\x1b]0;title\x07\n% \\input")
    assert failed.exists()
    with pytest.MonkeyPatch.context() as patch:  # figures have their own tests for text
        for module, name in (
            (plots, "make_figures"),
            (difference_plots, "make_difference_figures"),
        ):
            patch.setattr(module, name, lambda *_, **__: {})
        yield root, write_comparison(root, METRICS)


def test_nothing_is_written_outside_the_sweep_and_every_row_has_its_curves(hostile):
    root, _ = hostile
    assert [path.name for path in root.parent.iterdir()] == ["sweep"]
    events = list(root.glob("over_seeds/*/events.*"))
    assert len(events) == len(HOSTILE)  # without the run whose result contains a surrogate
    assert len(list(root.rglob("*compare"))) == len(events)
    again = {path: path.read_bytes() for path in events}
    write_comparison(root, METRICS)
    assert {path: path.read_bytes() for path in root.glob("over_seeds/*/events.*")} == again


def test_nothing_for_a_terminal_to_obey_is_printed_or_written(hostile):
    root, text = hostile
    texts = [text] + [(root / f"compare.{kind}").read_text() for kind in ("md", "tex", "csv")]
    for one in [*texts, (root / "report.html").read_text()]:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", one)
        assert r"\x1b" in one or "textbackslash{}x1b" in one


def test_no_latex_command_comes_from_a_name(hostile):
    commands = set()
    for line in (hostile[0] / "compare.tex").read_text().splitlines():
        if not line.startswith("% "):
            commands |= set(re.findall(r"\\[A-Za-z]+", line))
            assert not re.search(r"(?<!\\)[#~^]", re.sub(r"\\textascii\w+", "", line))
    own = {"begin", "end", "toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "pm"}
    own |= {"textbackslash", "textasciicircum", "textasciitilde"}
    assert commands == {f"\\{name}" for name in own}


def test_no_csv_cell_is_a_formula_and_no_number_is_changed(hostile):
    with (hostile[0] / "compare.csv").open() as file:
        rows = list(csv.reader(file))
    names = {row[0] for row in rows}
    assert {"teacher_forcing", "'=HYPERLINK(A1)", "'@sum", ".."} <= names
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t")), cell
            assert not cell.startswith("-") or float(cell) < 0


def test_names_add_no_elements_to_the_page(hostile):
    found = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.update([tag, *(name for name, _ in attrs)])

    Tags().feed((hostile[0] / "report.html").read_text())
    assert "table" in found
    assert not found & {"script", "img", "src", "onerror", "href"}


def test_no_markdown_markup_comes_from_a_name(hostile):
    text = (hostile[0] / "compare.md").read_text()
    assert r"a\|b\`c\`\<img src=x onerror=y>[d]\(http://e)" in text
    widths = {}
    for line in text.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            widths.setdefault(cells, []).append(line)
    assert all(len(lines) >= 2 + len(HOSTILE) for lines in widths.values())


def test_ordinary_text_stays_as_it_is():
    for name in ("teacher_forcing", "linear (k=0.5)", "WER %", "+1.20 [1.05, 1.35]", "Übung 今"):
        assert visible(name) == markdown(name) == name
        assert csv_cell(name) == name or name[0] == "+"
    assert latex("WER %, 3 ± 1, <0.001") == r"WER \%, 3 $\pm$ 1, $<$0.001"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\", r"\textbackslash{}"),
        ("{}", r"\{\}"),
        ("$^~&#_%", r"\$\textasciicircum{}\textasciitilde{}\&\#\_\%"),
        ("a\nb", r"a\textbackslash{}nb"),
    ],
)
def test_every_special_latex_character_is_escaped(text, expected):
    assert latex(text) == expected


def test_latex_rows_and_comments_end_where_they_should():
    assert latex_row(["*", "[2]"]) == r"{}* & [2] \\"
    assert latex_row(["a & b"]) == r"a \& b \\"
    assert latex_comment("a\nb") == r"% a\nb"
