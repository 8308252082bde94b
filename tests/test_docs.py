"""The documentation: its code runs, its local links exist, every command is in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["concepts"])
def test_code_blocks_run(page):
    pytest.importorskip("torch", reason="pip install 'tvm-bitenc[torch]'")
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks, names = BLOCK.findall(text), {}
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http|#)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    documents = re.findall(r"\{doc\}`([\w/]+)`", text)
    built = {"tutorials/index"}
    assert all(name in built or (page.parent / f"{name}.md").exists() for name in documents)


def test_every_command_is_documented(monkeypatch):
    pytest.importorskip("typer", reason="pip install 'tvm-bitenc[cli]'")
    init = (ROOT / "tvm_bitenc" / "cli" / "__init__.py").read_text(encoding="utf-8")
    commands = set(re.findall(r"^    from \.(\w+) import", init, re.MULTILINE))
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert commands and {c for c in commands if f"`bitenc {c}" not in page} == set()


def test_every_tutorial_is_listed_and_ends_in_a_picture():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tutorials = sorted((ROOT / "tutorials").glob("[0-9]*.py"))
    assert len(tutorials) >= 6
    for path in tutorials:
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""\n') and text.count("\n# %%\n") >= 3, path
        assert "savefig(OUT /" in text and f"tutorials/{path.name}" in readme, path
