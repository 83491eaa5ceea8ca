"""ric push and --push-to-hub, against a hub that is not there."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from ric_diffusion.cli import main
from ric_diffusion.data.responses import write_responses
from support.lm import write_lm

DIFFUSION = ["README.md", "manifest.json", "pytorch_lora_weights.safetensors", "ric_adapter.json"]
PEFT = ["adapter_config.json", "adapter_model.safetensors"]
LLM = ["README.md", *PEFT, "manifest.json", "ric_adapter.json"]
ADDRESS = "https://huggingface.co/me/sliders\n"


class Hub:
    """What was asked of it, and the answers that it gives instead of doing that."""

    def __init__(self):
        self.repositories, self.uploads, self.answers = [], [], {}

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok
        self.answer("create_repo")
        self.repositories.append((repo_id, private))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert commit_message
        self.answer("upload_folder")
        files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.uploads.append((repo_id, files))

    def answer(self, request):
        if request in self.answers:
            raise self.answers[request]


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    return hub


def refusal(status):
    class Response:
        status_code, headers, request = status, {}, None

    return HfHubHTTPError(f"{status} Client Error.\n\nmore of it", response=Response())


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_an_adapter_of_pictures(ric, root, hub, tmp_path, mode):
    folder = shutil.copytree(root / mode / "adapter", tmp_path / "adapter")
    (folder / "notes.txt").write_text("private")
    (folder / "checkpoints").mkdir()
    done = ric("push", "--adapter", folder, "--to", "me/sliders")
    assert (done.code, done.out, done.err) == (0, ADDRESS, "")
    assert hub.repositories == [("me/sliders", True)]
    [(repo, files)] = hub.uploads
    encoder = ["reward_encoder.safetensors"] if mode == "embedding" else []
    assert repo == "me/sliders" and sorted(files) == sorted([*DIFFUSION, *encoder])
    for name in set(files) - {"README.md"}:
        assert files[name] == (folder / name).read_bytes()
    card = files["README.md"].decode()
    assert "this/folder" not in card and 'load_adapter("me/sliders")' in card
    assert "this/folder" in (folder / "README.md").read_text()  # ours stays as it was


def test_an_adapter_of_texts(ric, hub, tmp_path):
    write_lm(tmp_path / "model")
    asks = [(f"ask {i}?", " ".join(["good", "bad", "sea"][: 1 + i % 3]) + ".") for i in range(12)]
    write_responses(asks, tmp_path / "said")
    label = ["label", str(tmp_path / "said"), "--out", str(tmp_path / "labelled")]
    assert main([*label, "--scorers", "positivity", "brevity"]) == 0
    config = {
        "model": str(tmp_path / "model"),
        "data": str(tmp_path / "labelled"),
        "llm": {"mode": "text", "lora": {"rank": 4, "alpha": 8}},
        "loop": {"steps": 1, "batch_size": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "run"
    done = ric("train", tmp_path / "config.yaml", "--out", out, "--push-to-hub", "me/sliders")
    assert (done.code, done.out) == (0, f"{out / 'adapter'}\n{ADDRESS}")
    assert ric("push", "--adapter", out / "adapter", "--to", "me/sliders").code == 0
    assert [sorted(files) for _, files in hub.uploads] == [LLM, LLM]
    config = json.loads(hub.uploads[0][1]["adapter_config.json"])
    assert config["task_type"] == "CAUSAL_LM"


@pytest.fixture
def train(ric, root, tiny, tmp_path):
    def run(*args):
        data = tiny.config(root, "text", prompts=[], loop={"steps": 1, "batch_size": 2})
        path = tiny.write_config(tmp_path / "config.yaml", data)
        push = ["--push-to-hub", "me/sliders"]
        return ric("train", path, "--out", tmp_path / "run", *push, *args)

    return run


def test_after_training(train, hub, tmp_path):
    done = train()
    adapter = tmp_path / "run" / "adapter"
    assert (done.code, done.out) == (0, f"{adapter}\n{ADDRESS}")
    [(_, files)] = hub.uploads
    assert sorted(files) == DIFFUSION
    assert files["ric_adapter.json"] == (adapter / "ric_adapter.json").read_bytes()


def test_before_training_it_is_asked_whether_it_may(train, hub, monkeypatch, tmp_path):
    monkeypatch.setattr("ric_diffusion.api.runs.Trainer", lambda *args, **more: pytest.fail())
    hub.answers["create_repo"] = refusal(403)
    done = train()
    assert (done.code, done.out) == (2, "")
    assert done.err == "ric train: me/sliders: the hub refused (403 Client Error.)\n"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = train()
    assert done.code == 2 and "run `hf auth login`, or set HF_TOKEN" in done.err
    assert not (tmp_path / "run" / "adapter").exists()


def test_what_was_trained_is_kept_when_the_hub_is_gone(train, hub, ric, tmp_path):
    hub.answers["upload_folder"] = ConnectionError("no route to host")
    done = train()
    adapter = tmp_path / "run" / "adapter"
    assert (done.code, done.out) == (1, "")
    told = done.err.splitlines()[-1]
    assert told.startswith("ric train: me/sliders: the hub cannot be reached (no route to host); ")
    command = f"ric push --adapter {adapter} --to me/sliders"
    assert told.endswith(f"is kept, push it with `{command}`")
    hub.answers.clear()
    assert ric(*command.split()[1:]).out == ADDRESS


def test_online_asks_first_and_pushes_last(ric, root, tiny, hub, tmp_path):
    data = tiny.config(root, "embedding")
    loop = data["loop"] | {"steps": 2, "schedule": "constant"}
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
    online = {"rounds": 1, "samples": 8, "batch_size": 4, "loop": loop, "guard": guard}
    kept = {key: data[key] for key in ("model", "data", "diffusion")}
    adapter = str(root / "embedding" / "adapter")
    config = {**kept, "adapter": adapter, "online": online}
    path = tiny.write_config(tmp_path / "online.yaml", config)
    args = ["online", path, "--out", tmp_path / "out", "--push-to-hub", "me/sliders"]
    hub.answers["create_repo"] = refusal(401)
    done = ric(*args)
    assert done.code == 2 and "the hub refused" in done.err
    assert not (tmp_path / "out" / "round-1").exists()
    hub.answers.clear()
    done = ric(*args)
    assert (done.code, done.out.splitlines()[-1] + "\n") == (0, ADDRESS), done.err
    assert json.loads(hub.uploads[0][1]["ric_adapter.json"])["training"]["rounds"] == 1


@pytest.mark.parametrize("repo", ["sliders", "a/b/c", "me/", "me/sli ders", "me/-x", "me/a..b"])
def test_malformed_ids(refused, hub, repo):
    refused("write user/name", "push", "--adapter", "{root}/text/adapter", "--to", repo)
    assert hub.repositories == hub.uploads == []


@pytest.mark.parametrize(
    "said, adapter",
    [
        ("--adapter gone: no such folder", "gone"),
        ("--adapter some/hub-id: no such folder", "some/hub-id"),
        ("not an adapter folder, it has no ric_adapter.json", "empty"),
        ("torn/ric_adapter.json: not valid JSON", "torn"),
    ],
)
def test_what_is_no_adapter(refused, hub, said, adapter):
    refused(said, "push", "--adapter", adapter, "--to", "me/sliders")
    assert hub.repositories == hub.uploads == []


@pytest.mark.parametrize("request_", ["create_repo", "upload_folder"])
@pytest.mark.parametrize(
    "code, said, answer",
    [
        (2, "the hub refused (401 Client Error.)", refusal(401)),
        (2, "the hub refused (base_model is not valid)", ValueError("base_model is not valid\nx")),
        (1, "the hub cannot be reached (503 Client Error.)", refusal(503)),
        (1, "the hub cannot be reached (offline)", OfflineModeIsEnabled("offline")),
        (1, "the hub cannot be reached (ConnectError)", type("ConnectError", (Exception,), {})()),
    ],
)
def test_the_hub_says_no(ric, root, hub, request_, code, said, answer):
    hub.answers[request_] = answer
    done = ric("push", "--adapter", root / "text" / "adapter", "--to", "me/sliders")
    assert (done.code, done.out) == (code, "")
    assert done.err == f"ric push: me/sliders: {said}\n"
