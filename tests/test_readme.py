"""The README's example and commands are real."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_as_they_stand(tmp_path, monkeypatch, capfd):
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    printed, warned = capfd.readouterr()
    assert "W8A8" in printed and "W2A2" in printed and "rror" not in warned
    assert names["fast"].shape == (1, 16, 28, 28)
    assert [path.name for path in tmp_path.iterdir()] == ["net.so"]


def test_commands_and_links_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"] and set(commands) <= set(targets)
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
