"""Responses: labelled as pictures are, and made of what a model says or a dataset holds."""

import json

import numpy as np
import pytest

import scorers
from ric_diffusion.data.framing import FRAMING
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.medium import TEXT
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.responses import read_dataset, split_dialogue, write_responses
from ric_diffusion.data.unchanged import check_unchanged
from ric_diffusion.io.errors import InputError

ROWS = [
    ("How are you?", "I am very happy today."),
    ("How are you?", "Terrible."),
    ("And you?", "Terrible."),
    ("Why?", "Because.\r\nIt is so; there is nothing good about it."),
    ("And you?", "Fine, thank you. A lovely day!"),
]


def label(folder, out, *names):
    return label_folder(folder, out, [scorers.load(name) for name in names], progress=False)


@pytest.fixture
def folder(tmp_path):
    write_responses(ROWS, tmp_path / "said", [{"style": i % 2} for i in range(5)])
    return tmp_path / "said"


def test_prompts_that_begin_with_a_bom(tmp_path):
    (tmp_path / "asks.txt").write_bytes("\ufeff# mine\nWhy?\n".encode())
    assert read_prompts(tmp_path / "asks.txt") == ["Why?"]


def test_a_line_of_prompts_ends_where_editors_end_it(tmp_path):
    (tmp_path / "asks.txt").write_bytes("a cat\u2028on a mat\r\na\x0cdog\rtwo\r".encode())
    assert read_prompts(tmp_path / "asks.txt") == ["a cat\u2028on a mat", "a\x0cdog", "two"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n# mine\n \n", "no prompts in it"),
        (b"\xff\xfe", "not UTF-8 text"),
        ("red apple\nblue boat\n".encode("utf-16-le"), "UTF-16 without its mark; save it as UTF-8"),
        (None, "be read"),
    ],
)
def test_files_without_a_prompt(tmp_path, data, said):
    if data is not None:
        (tmp_path / "asks.txt").write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        read_prompts(tmp_path / "asks.txt")
    assert str(caught.value).startswith(f"{tmp_path / 'asks.txt'}: ")


def test_a_text_changed_since_it_was_labelled_is_named(folder, tmp_path):
    label(folder, tmp_path / "out", "brevity")
    records, _ = read_labelled(tmp_path / "out")
    check_unchanged(tmp_path / "out", records, TEXT, tmp_path / "cache")
    (tmp_path / "out" / records[2].file).write_text("Horrible.")
    records, _ = read_labelled(tmp_path / "out")
    with pytest.raises(InputError, match=f"{records[2].file}: not the text that was labelled"):
        check_unchanged(tmp_path / "out", records, TEXT, tmp_path / "cache")
    assert not (tmp_path / "out" / FRAMING).exists()


def test_responses_are_labelled(folder, tmp_path):
    report = label(folder, tmp_path / "out", "positivity", "brevity")
    assert (report.count, report.medium, report.skipped) == (5, "text", {})
    records, space = read_labelled(tmp_path / "out")
    assert space.names == ("positivity", "brevity")
    for record, (prompt, response) in zip(records, ROWS, strict=True):
        assert record.captions == (prompt,)
        assert TEXT.read(tmp_path / "out" / record.file) == response
        assert record.scores["brevity"] == -len(response.split())
    assert [r.extra["style"] for r in records] == [0, 1, 0, 1, 0]
    assert records[0].scores["positivity"] > 0 > records[1].scores["positivity"]
    again = label(folder, tmp_path / "out", "positivity", "brevity")
    assert again.scored == {"positivity": 0, "brevity": 0} and not again.written


def test_one_text_on_two_prompts_is_two_records(folder, tmp_path):
    label(folder, tmp_path / "out", "brevity")
    records, _ = read_labelled(tmp_path / "out")
    assert len({r.file for r in records}) == 5


def test_what_is_left_out(folder, tmp_path):
    (folder / "texts" / "000000.txt").write_text(" \n")
    (folder / "texts" / "000001.txt").write_bytes(b"\xff\xfe")
    write = [json.dumps({"file_name": "texts/000003.txt", "text": "Why?"})]
    write += [json.dumps({"file_name": f"texts/00000{i}.txt", "text": "a"}) for i in (0, 1, 2, 7)]
    write += [json.dumps({"file_name": "texts/000004.txt", "text": ""})]
    (folder / "texts" / "000008.txt").write_text("Fine, thank you. A lovely day!")
    (folder / "texts" / "000009.txt").write_text("Fine, thank you. A lovely day!")
    write += [json.dumps({"file_name": f"texts/00000{i}.txt", "text": "b"}) for i in (8, 9)]
    (folder / "metadata.parquet").unlink()
    (folder / "metadata.jsonl").write_text("\n".join(write))
    report = label(folder, tmp_path / "out", "brevity")
    assert report.count == 3
    assert report.skipped == {
        "texts/000000.txt": "empty",
        "texts/000001.txt": "not UTF-8 text",
        "texts/000004.txt": "no caption or prompt",
        "texts/000007.txt": "missing file",
        "texts/000009.txt": "same as texts/000008.txt",
    }


def test_pictures_and_texts_are_not_scored_together(folder, tmp_path):
    with pytest.raises(InputError, match="brevity texts, colorfulness images") as error:
        label(folder, tmp_path / "out", "brevity", "colorfulness")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_too_few(folder, tmp_path):
    for path in sorted((folder / "texts").iterdir())[1:]:
        path.write_text("")
    with pytest.raises(InputError, match="1 usable text, at least 2 are needed; 4 skipped"):
        label(folder, tmp_path / "out", "brevity")


def test_nothing_to_write(tmp_path):
    with pytest.raises(InputError, match="no responses"):
        write_responses([], tmp_path / "out")


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant: Like this.\nSo.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant: No.",
}
PROMPT = "Human: Hi\n\nAssistant: Hello.\n\nHuman: How?\n\nAssistant:"
POST = {"info": {"post": "I lost\nmy  dog."}, "summaries": [{"text": " Lost dog."}, {"text": "D."}]}
SUMMARY = (
    "### Instruction: Generate a one-sentence summary of this post. ### Input: I lost my dog. "
    "### Response:"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_dialogues(tmp_path):
    source = write(tmp_path / "hh.jsonl", [HH, {**HH, "rejected": "\n\nHuman: Hi\n\nAssistant: "}])
    found = list(read_dataset(source, "dialogue"))
    assert found == [(PROMPT, "Like this.\nSo."), (PROMPT, "No."), (PROMPT, "Like this.\nSo.")]
    assert len(list(read_dataset(source, "dialogue", limit=1))) == 2


@pytest.mark.parametrize("text", ["", "Hello", "\n\nHuman: Hi", "\n\nAssistant: A\n\nHuman: B"])
def test_a_dialogue_that_nobody_answers(text):
    assert split_dialogue(text) is None


def test_summaries(tmp_path):
    source = write(tmp_path / "tldr.jsonl", [POST])
    assert list(read_dataset(source, "summary")) == [(SUMMARY, "Lost dog."), (SUMMARY, "D.")]
    plain = write(tmp_path / "plain.jsonl", [{"prompt": "I lost my dog.", "label": "Lost dog."}])
    assert list(read_dataset(plain, "summary")) == [(SUMMARY, "Lost dog.")]


def test_rows_of_news_have_no_post_and_are_passed_over(tmp_path):
    news = {"info": {"post": None, "article": "Rain."}, "summaries": [{"text": "Wet."}]}
    source = write(tmp_path / "both.jsonl", [news, POST])
    assert [text for _, text in read_dataset(source, "summary")] == ["Lost dog.", "D."]


@pytest.mark.parametrize("summaries", [["text"], "text", 3, None, [{"words": "text"}]])
def test_summaries_of_another_shape(tmp_path, summaries):
    source = write(tmp_path / "x.jsonl", [{"info": {"post": "I"}, "summaries": summaries}])
    with pytest.raises(InputError, match=r"row 0 is no summary: .*summaries with a text") as error:
        list(read_dataset(source, "summary"))
    assert "\n" not in str(error.value)


def test_a_subset_of_a_dataset_that_has_several(tmp_path):
    for name in ("axis", "comparisons"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "rows.jsonl", [{"post": "I lost my dog.", "summary": name}])
    files = "".join(
        f"- config_name: {name}\n  data_files: {name}/rows.jsonl\n"
        for name in ("axis", "comparisons")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    found = read_dataset(str(tmp_path), "summary", subset="comparisons")
    assert list(found) == [(SUMMARY, "comparisons")]
    for subset, said in ((None, "give --subset"), ("comparison", "'comparison' not found")):
        with pytest.raises(InputError, match=rf"{said}.*'axis', 'comparisons'") as error:
            list(read_dataset(str(tmp_path), "summary", subset=subset))
        assert "\n" not in str(error.value)


def test_a_file_is_split_train_and_has_no_subset(tmp_path):
    source = write(tmp_path / "hh.jsonl", [HH, HH, HH])
    assert len(list(read_dataset(source, "dialogue", split="train[:2]"))) == 4
    with pytest.raises(InputError, match='Unknown split "test"'):
        list(read_dataset(source, "dialogue", split="test"))
    with pytest.raises(InputError, match="has no subset 'comparisons'"):
        list(read_dataset(source, "dialogue", subset="comparisons"))


def test_files_are_found_as_people_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "D2.JSONL", [{"question": "why", "answer": "so"}])
    for source, said in {
        "~/D2.JSONL": "row 0 is no dialogue",
        "missing.jsonl": "missing.jsonl: no such file",
        "~/missing": f"{tmp_path / 'missing'}: no such file",
    }.items():
        with pytest.raises(InputError, match=said):
            list(read_dataset(source, "dialogue"))


@pytest.mark.parametrize("form", ["dialogue", "summary"])
def test_columns_of_something_else(tmp_path, form):
    source = write(tmp_path / "x.jsonl", [{"question": "why", "answer": "so"}])
    with pytest.raises(InputError, match=f"row 0 is no {form}.*question, answer") as error:
        list(read_dataset(source, form))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["no/such-dataset", "bad.jsonl", "bad.xyz"])
def test_what_is_no_dataset(tmp_path, name):
    source = name
    if name.startswith("bad"):
        (tmp_path / name).write_text("{")
        source = str(tmp_path / name)
    with pytest.raises(InputError) as error:
        list(read_dataset(source, "dialogue"))
    assert str(error.value).startswith(f"{source}: ") and "\n" not in str(error.value)


def test_our_own_asks():
    from support.processes import HOME

    asks, held_out = (read_prompts(HOME / "scripts" / f"asks{x}.txt") for x in ("", "-held-out"))
    assert len(asks) >= 200 and len(held_out) == 40 and not set(asks) & set(held_out)
    assert np.max([len(ask.split()) for ask in asks]) <= 20
