"""What the app needs of Gradio's insides: there, doing what it is for, and loud when it is gone."""

import asyncio
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
import torch

from app_in_browser import free_port

gr = pytest.importorskip("gradio")

from gradio import processing_utils  # noqa: E402

from ric_diffusion.app import gradio_seam  # noqa: E402


@pytest.fixture
def seam(monkeypatch):
    """Gradio as it was, afterwards."""
    monkeypatch.setattr(
        processing_utils, gradio_seam.DOWNLOAD, getattr(processing_utils, gradio_seam.DOWNLOAD)
    )
    return gradio_seam


def test_no_file_of_another_machine_is_fetched(seam, tmp_path):
    seam.refuse_downloads()
    address = "https://example.org/a.png"
    with pytest.raises(gr.Error, match="files of other machines are not fetched"):
        asyncio.run(processing_utils.async_ssrf_protected_download(address, str(tmp_path)))
    assert list(tmp_path.rglob("*.png")) == []


def test_a_queue_that_looks_for_work_now_and_then(seam):
    with gr.Blocks() as app:
        gr.Textbox()
    app.queue()
    assert app._queue.sleep_when_free != 0.5
    seam.look_for_work_every(app, 0.5)
    assert app._queue.sleep_when_free == app._queue.progress_update_sleep_when_free == 0.5


def test_a_dropped_picture_is_a_path_to_us(seam):
    picture = gr.Image(label="Drop")
    seam.hand_over_path(picture)
    assert picture.preprocess(SimpleNamespace(path="/a/b.png")) == "/a/b.png"
    assert picture.preprocess(None) is None


def test_a_number_is_handed_over_as_it_came(seam):
    for control in (gr.Number(minimum=0, maximum=9), gr.Slider(0, 9)):
        with pytest.raises(gr.Error):
            control.preprocess(99)
        seam.hand_over_number(control)
        assert control.preprocess(99) == 99 and control.preprocess(None) is None


def test_other_blocks_are_shown_instead(seam):
    with gr.Blocks() as running:
        gr.Textbox(label="old")
    running.queue()
    port = free_port()
    running.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        with gr.Blocks(title="another") as other:
            gr.Textbox(label="new")
        seam.show_instead(running, other)
        assert running.app.get_blocks() is other and other._queue is running._queue
        with urlopen(f"http://127.0.0.1:{port}/") as page:
            assert "another" in page.read().decode()
    finally:
        running.close(verbose=False)


def test_a_gradio_without_them_is_refused(seam, monkeypatch):
    said = "which ric_diffusion/app/gradio_seam.py relies on"
    with pytest.raises(seam.GradioChanged, match=f"Blocks._queue.sleep_when_free, {said}"):
        seam.look_for_work_every(SimpleNamespace(_queue=SimpleNamespace()), 1)
    with pytest.raises(seam.GradioChanged, match=f"server.config.http_protocol_class, {said}"):
        seam.end_slow_connections(SimpleNamespace(server=None))
    with pytest.raises(seam.GradioChanged, match=said):
        seam.look_for_work_every(SimpleNamespace(), 1)
    with pytest.raises(seam.GradioChanged, match=f"Image.preprocess, {said}"):
        seam.hand_over_path(SimpleNamespace())
    with pytest.raises(seam.GradioChanged, match=f"SimpleNamespace.preprocess, {said}"):
        seam.hand_over_number(SimpleNamespace())
    with pytest.raises(seam.GradioChanged, match=f"swap_blocks, {said}"):
        seam.show_instead(SimpleNamespace(), SimpleNamespace())
    monkeypatch.delattr(processing_utils, seam.DOWNLOAD)
    with pytest.raises(seam.GradioChanged, match=f"async_ssrf_protected_get, {said}"):
        seam.refuse_downloads()


def test_the_engine_leaves_the_models_modules_as_they_are(engine):
    for part in engine.sampler.pipe.components.values():
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            assert "forward" not in vars(module)
