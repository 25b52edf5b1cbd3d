"""The command taste on files of labels that are written here: agreement, one file of two, and a run."""

import json

import pytest

from lab.cli.main import main
from lab.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def labels(path, *, swapped=(), count=24):
    """A file of labels for sums modulo 100: the right answer is preferred, except in `swapped`."""
    rows = []
    for number in range(count):
        answers = [str((number + 7) % 100), str((number + 8) % 100)]
        chosen, rejected = reversed(answers) if number in swapped else answers
        rows.append({"prompt": f"{number}+7=", "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def said(capsys, *words):
    main(list(map(str, words)))
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, words)))
    assert stopped.value.code not in (0, None)
    return capsys.readouterr().err


def test_kappa_of_two_files_is_that_of_a_table_worked_by_hand(tmp_path, capsys):
    # The right answer is the first by length and alphabet, so its category is "shorter".
    ada = labels(tmp_path / "ada.jsonl", swapped=range(12))
    bob = labels(tmp_path / "bob.jsonl", swapped=range(6, 18))
    # Both prefer each answer in 12 of 24, and agree on 12: p_o = 0.5, p_e = 0.5, κ = 0.
    assert "κ = 0.00" in said(capsys, "taste", "kappa", ada, bob)
    assert "on 24 common items: equal on 50%, by chance 50%" in said(
        capsys, "taste", "kappa", ada, bob
    )


def test_kappa_of_a_file_with_itself_has_one_line_and_broken_lines_are_named(tmp_path, capsys):
    ada, bob = labels(tmp_path / "ada.jsonl", swapped=[1]), labels(tmp_path / "bob.jsonl")
    (line,) = said(capsys, "taste", "kappa", ada, ada).splitlines()
    assert line.startswith(f"{ada} and {ada}: κ = 1.00 on 24 common items")
    with bob.open("a") as file:
        file.write('{"prompt": "1+\n')
    note = f"{bob}: line 25 is skipped, because no label can be read there."
    out = tmp_path / "both.jsonl"
    for words in (("kappa", ada, bob), ("merge", ada, bob, "--out", out)):
        first, last = said(capsys, "taste", *words).splitlines()
        assert first and last == note
    assert len(out.read_text("utf-8").splitlines()) == 48


def test_merge_writes_a_new_file_with_every_label_and_its_labeller(tmp_path, capsys):
    ada, bob = labels(tmp_path / "ada.jsonl"), labels(tmp_path / "bob.jsonl", swapped=[3])
    both = tmp_path / "both.jsonl"
    assert "48 labels of 2 files" in said(capsys, "taste", "merge", ada, bob, "--out", both)
    rows = [json.loads(line) for line in both.read_text("utf-8").splitlines()]
    assert [row["labeller"] for row in rows] == ["1: ada"] * 24 + ["2: bob"] * 24
    assert rows[3]["chosen"] == rows[27]["rejected"]
    before = both.read_bytes()
    assert "exists" in refused(capsys, "taste", "merge", ada, bob, "--out", both)
    assert both.read_bytes() == before


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_train_makes_a_run_on_the_labels_and_names_the_agreement_with_those_it_held_out(
    tmp_path, root, capsys, monkeypatch, method
):
    from lab.taste import label_files

    steps = dict.fromkeys(label_files.SETTINGS, {"steps": 2})
    monkeypatch.setattr(label_files, "SETTINGS", steps)
    ada = labels(tmp_path / "ada.jsonl")
    ada.write_text(f'{ada.read_text("utf-8")}{{"prompt"\n', "utf-8")
    text = said(capsys, "taste", "train", ada, "--method", method, "--device", "cpu")
    assert "line 25 is skipped" in text
    (folder,) = [path for path in root.iterdir() if not path.name.endswith(".data")]
    files = {path.stem: path for path in (root / f"{folder.name}.data").iterdir()}
    counts = {name: len(path.read_text("utf-8").splitlines()) for name, path in files.items()}
    assert counts["train"] + counts["eval"] == 24 and counts["eval"] > 0
    assert f"{method} on {counts['train']} labels agrees with" in text
    assert f"the {counts['eval']} held-out labels" in text
    prompts = [
        {json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()}
        for path in files.values()
    ]
    assert not prompts[0] & prompts[1]
    assert RunFolder(folder).config.steps == 2


def test_a_file_that_is_none_too_few_labels_and_a_method_that_is_none_are_one_line(
    tmp_path, capsys
):
    few = labels(tmp_path / "few.jsonl", count=2)
    many = labels(tmp_path / "many.jsonl")
    assert "at least 2 files" in refused(capsys, "taste", "kappa", many)
    assert "too few" in refused(capsys, "taste", "train", few)
    assert "'grpo'" in refused(capsys, "taste", "train", many, "--method", "grpo")
    assert "nowhere.jsonl" in refused(capsys, "taste", "kappa", many, tmp_path / "nowhere.jsonl")
    assert "--out" in refused(capsys, "taste", "merge", many, few)
