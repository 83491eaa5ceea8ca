"""The page: controls, what they show, and which handler stands between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ric_diffusion.app import views
from ric_diffusion.app.engine import MAX_POINTS, MAX_SEED, REFINE
from ric_diffusion.app.gradio_seam import hand_over_path
from ric_diffusion.app.handlers import ALL_WEIGHTS, NONE, Handlers
from ric_diffusion.app.page import CHOOSE, SHARE
from ric_diffusion.app.sliders import MODES, PREFERENCE, STEP, TARGETS, Slider, shares

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
PLAIN: dict[str, Any] = {"apply_default_css": False}  # Gradio's makes tables and lists wide
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What every tab reads."""

    prompt: Any
    seed: Any
    locked: Any
    refine: Any
    mode: Any
    weights: list[Any]
    values: list[Any]
    autos: list[Any]
    go: Any
    cancel: Any

    @property
    def positions(self) -> list[Any]:
        return [*self.weights, *self.values, *self.autos]


def build(handlers: Handlers) -> Any:
    """The app's blocks, ready to launch."""
    engine = handlers.engine
    with gr.Blocks(
        title=f"ric · {engine.name}", analytics_enabled=False, delete_cache=(600, 3600)
    ) as app:
        gr.Markdown("# Reward sliders")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                controls = _controls(handlers)
                line = gr.HTML(views.said(""), elem_id="line", **PLAIN)
            with gr.Column(scale=3, min_width=320):
                sample, scores = _sample(engine.pictures)
                with gr.Tabs():
                    runs = _tabs(handlers, controls, line)
        runs.append(_draw(handlers, controls, sample, scores, line))
        controls.cancel.click(handlers.stop, None, line, cancels=runs, **QUIET)
        app.unload(handlers.leave)
    return app


def _controls(handlers: Handlers) -> Controls:
    sliders, pictures = handlers.sliders, handlers.engine.pictures
    prompt = gr.Textbox(
        label="Prompt" if pictures else "Ask",
        placeholder="red apple" if pictures else "How do I make a good cup of coffee?",
        lines=1 if pictures else 3,
        elem_id="prompt",
        autofocus=True,
    )
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", minimum=0, maximum=MAX_SEED, min_width=120, elem_id="seed"
        )
        locked = gr.Checkbox(True, label="Keep this seed", min_width=120, elem_id="lock")
    refine = gr.Checkbox(
        False,
        label="Refine",
        info=f"Draws up to {REFINE} times more from the same seed, with what is asked moved by "
        "what was obtained, and keeps what comes nearest to the targets.",
        elem_id="refine",
    )
    several = len(sliders) > 1
    mode = gr.Radio(
        [("Preference: shares of 100 %", PREFERENCE), ("Targets, in z", TARGETS)],
        value=PREFERENCE if several else TARGETS,
        label="Sliders",
        visible=several,
        elem_id="mode",
    )
    with gr.Column(visible=several) as by_weight:
        weights = [_weight(*pair) for pair in zip(sliders, shares(len(sliders)), strict=True)]
    with gr.Column(visible=not several) as by_target:
        values, autos = zip(*[_target(slider) for slider in sliders], strict=True)
    with gr.Row():
        go = gr.Button("Draw" if pictures else "Respond", variant="primary", elem_id="go")
        cancel = gr.Button("Cancel", elem_id="cancel")
    mode.change(
        lambda chosen: [gr.Column(visible=chosen == each) for each in MODES],
        mode, [by_weight, by_target], **QUIET,
    )  # fmt: skip
    for i, weight in enumerate(weights):
        weight.input(None, weights, weights, js=SHARE % i, **QUIET)
    for value, auto in zip(values, autos, strict=True):
        value.input(None, None, auto, js="() => false", **QUIET)
    return Controls(
        prompt=prompt,
        seed=seed,
        locked=locked,
        refine=refine,
        mode=mode,
        weights=weights,
        values=list(values),
        autos=list(autos),
        go=go,
        cancel=cancel,
    )


def _weight(slider: Slider, value: int) -> Any:
    return gr.Slider(
        0, 100, value, step=1, label=f"{slider.name}, %", buttons=[], elem_classes="reward",
        elem_id=f"weight-{slider.name}",
    )  # fmt: skip


def _target(slider: Slider) -> tuple[Any, Any]:
    with gr.Group():
        auto = gr.Checkbox(
            True, label=f"{slider.name}: auto, the model fills it in", elem_id=f"auto-{slider.name}"
        )
        value = gr.Slider(
            slider.low, slider.high, min(max(0.0, slider.low), slider.high), step=STEP,
            label=f"{slider.name}, z", buttons=[], elem_classes="reward",
            elem_id=f"target-{slider.name}",
        )  # fmt: skip
        gr.HTML(views.strip(slider), elem_classes="under", **PLAIN)
    return value, auto


def _sample(pictures: bool) -> tuple[Any, Any]:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            if pictures:
                sample = _picture("Picture", "picture")
            else:
                sample = gr.Textbox(
                    label="Response",
                    lines=8,
                    interactive=False,
                    buttons=["copy"],
                    elem_id="response",
                )
        with gr.Column(min_width=260):
            scores = gr.HTML(elem_id="scores", **PLAIN)
    return sample, scores


def _picture(label: str, name: str) -> Any:
    return gr.Image(
        label=label, alt_text=label, show_label=False, format="png", interactive=False,
        buttons=["download", "fullscreen"], elem_classes="shown", elem_id=name, min_width=260,
    )  # fmt: skip


def _tabs(handlers: Handlers, controls: Controls, line: Any) -> list[Any]:
    """The tabs; returns the events that a cancel ends."""
    runs = []
    if handlers.engine.pictures:
        with gr.Tab("Sweep"):
            runs.append(_sweep_tab(handlers, controls, line))
    with gr.Tab("Front"):
        _front_tab(handlers, controls)
    if handlers.engine.pictures:
        with gr.Tab("Image to image"):
            runs.append(_transform_tab(handlers, controls, line))
    return runs


def _sweep_tab(handlers: Handlers, controls: Controls, line: Any) -> Any:
    names = handlers.names
    several = len(names) > 1
    with gr.Row():
        along = gr.Dropdown(
            [*([ALL_WEIGHTS] if several else []), *names],
            label="Along", min_width=140, elem_id="along",
        )  # fmt: skip
        across = gr.Dropdown(
            [NONE, *names], label="Across", visible=several, min_width=140, elem_id="across"
        )
    points = gr.Slider(
        2, MAX_POINTS, 5, step=1, label="Points along each", buttons=[], elem_id="points"
    )
    start = gr.Button("Sweep", variant="primary", elem_id="start-sweep")
    sheet = gr.Image(
        label="Sweep",
        alt_text="Sweep",
        show_label=False,
        format="png",
        interactive=False,
        buttons=["fullscreen"],
        elem_id="sheet",
    )
    with gr.Row():
        png = gr.DownloadButton("Download PNG", interactive=False, elem_id="png", min_width=140)
        plain = gr.DownloadButton("Download JSON", interactive=False, elem_id="json", min_width=140)
    return start.click(
        handlers.sweep,
        [along, across, points, controls.prompt, controls.seed],
        [sheet, png, plain, line],
        show_progress_on=sheet,
        api_name="sweep",
        **ONE_AT_A_TIME,
    )


def _front_tab(handlers: Handlers, controls: Controls) -> None:
    front, names = handlers.front, handlers.names
    if front is None:
        gr.HTML(views.no_front(), elem_id="front")
        return
    x, y = names[0], names[min(1, len(names) - 1)]
    gr.Markdown("Each point is a preference, at the mean scores that the evaluation found for it.")
    with gr.Row(visible=len(names) > 2):
        pair = [gr.Dropdown(names, value=name, label=f"{axis} axis", min_width=140)
                for axis, name in (("Horizontal", x), ("Vertical", y))]  # fmt: skip
    chart = gr.HTML(views.chart(front, x, y), js_on_load=CHOOSE, elem_id="front", **PLAIN)
    gr.on(
        [axis.change for axis in pair],
        lambda x, y: views.chart(front, x, y),
        pair, chart, **QUIET,
    )  # fmt: skip
    chart.select(handlers.choose, pair, [chart, controls.mode, *controls.positions], **QUIET).then(
        None, None, None, js="() => document.querySelector('#go').click()", **QUIET
    )


def _transform_tab(handlers: Handlers, controls: Controls, line: Any) -> Any:
    with gr.Row(equal_height=False):
        picture = gr.Image(
            label="Drop a picture",
            sources=["upload", "clipboard"],
            elem_id="dropped",
            min_width=220,
            height=280,
        )
        hand_over_path(picture)
        result = _picture("Moved along the rewards", "moved")
    strength = gr.Slider(
        0.1, 1, 0.5, step=0.05, label="Strength: how much of it is drawn anew", buttons=[],
        elem_id="strength",
    )  # fmt: skip
    start = gr.Button("Move along the rewards", variant="primary", elem_id="start-transform")
    scores = gr.HTML(elem_id="moved-scores", **PLAIN)
    return start.click(
        handlers.transform,
        [picture, strength, controls.prompt, controls.seed, controls.mode, *controls.positions],
        [result, scores, line],
        show_progress_on=result,
        api_name="transform",
        **ONE_AT_A_TIME,
    )


def _draw(handlers: Handlers, controls: Controls, sample: Any, scores: Any, line: Any) -> Any:
    """Draw whenever something was set; of what is set meanwhile, only the last."""
    moved = [slider.release for slider in (*controls.weights, *controls.values)]
    return gr.on(
        [
            controls.go.click,
            controls.prompt.submit,
            controls.refine.input,
            *moved,
            *(auto.input for auto in controls.autos),
        ],
        handlers.draw,
        [
            controls.prompt,
            controls.seed,
            controls.locked,
            controls.refine,
            controls.mode,
            *controls.positions,
        ],
        [sample, scores, controls.seed, line],
        trigger_mode="always_last",
        show_progress_on=sample,
        api_name="draw",
        **ONE_AT_A_TIME,
    )
