"""The page: controls, what they show, and which handler stands between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ric_diffusion.app import views
from ric_diffusion.app.engine import MAX_COUNT, MAX_POINTS, MAX_SEED, REFINE
from ric_diffusion.app.gradio_seam import hand_over_number, hand_over_path
from ric_diffusion.app.handlers import ALL_WEIGHTS, NONE, Handlers
from ric_diffusion.app.page import CHOOSE, DRAW, FEED, NEW_SEED, RELOAD, SHARE, begin, end
from ric_diffusion.app.settings import SAMPLING, Settings
from ric_diffusion.app.sliders import MODES, PREFERENCE, STEP, TARGETS, Slider
from ric_diffusion.models.family import bundled_names
from ric_diffusion.rewards import MAPPINGS

PROMPT = "red apple"  # of the first picture
AT_A_TIME = 24  # requests that wait for the model in threads of their own
# Of the model there is one thread, whose queue says one's place and lets one go; Gradio's does not.
WAITING: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": AT_A_TIME}
PLAIN: dict[str, Any] = {"apply_default_css": False}  # Gradio's makes tables and lists wide
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
TITLES = {
    "steps": "Steps",
    "guidance_scale": "Guidance",
    "true_cfg_scale": "True guidance",
    "contrast": "Contrast",
    "reward_start": "Reward start",
    "width": "Width",
    "height": "Height",
}


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What every tab reads: ``row`` is all of it, as ``Form`` has it."""

    prompt: Any
    seed: Any
    dice: Any
    refine: Any
    mode: Any
    weights: list[Any]
    values: list[Any]
    autos: list[Any]
    go: Any
    cancel: Any
    row: list[Any]

    @property
    def positions(self) -> list[Any]:
        return [*self.weights, *self.values, *self.autos]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Where a sample is shown, and how it went."""

    feed: Any
    response: Any
    scores: Any
    line: Any
    gallery: Any

    @property
    def shown(self) -> list[Any]:
        return [self.feed, self.response, self.scores, self.line]


def build(handlers: Handlers) -> Any:
    """The app's blocks, ready to launch."""
    engine = handlers.engine
    with gr.Blocks(
        title=f"ric · {engine.name}", analytics_enabled=False, delete_cache=(600, 3600)
    ) as app:
        gr.Markdown("# Reward sliders")
        with gr.Row(equal_height=False, elem_id="main"):
            with gr.Column(scale=2, min_width=320, elem_id="controls"):
                controls = _controls(handlers)
            with gr.Column(scale=3, min_width=320, elem_id="result"):
                result = _result(engine.pictures)
                with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                    _tabs(handlers, controls)
                    with gr.Tab("Presets, copy"):
                        presets = _keep_tab(handlers, controls, result)
                    with gr.Tab("Model"):
                        _model_tab(handlers)
        _draw(handlers, controls, result, app.load if engine.pictures else None)
        controls.cancel.click(handlers.stop, None, result.line, **QUIET)
        result.gallery.select(handlers.restore, None, [*controls.row, *result.shown], **QUIET)
        app.load(lambda: gr.Dropdown(handlers.preset_names()), None, presets, **QUIET)
        app.unload(handlers.leave)
    return app


def _controls(handlers: Handlers) -> Controls:
    engine, sliders = handlers.engine, handlers.sliders
    pictures, several = engine.pictures, len(sliders) > 1
    first = handlers.form.initial(PROMPT if pictures else "")
    with gr.Column(elem_id="asking"):
        prompt = gr.Textbox(
            first.prompt,
            label="Prompt" if pictures else "Ask",
            placeholder="What the picture shows" if pictures else "What the model is to respond to",
            lines=1 if pictures else 3,
            elem_id="prompt",
            autofocus=True,
        )
    mode = gr.Radio(
        [("Preference: shares of 100 %", PREFERENCE), ("Targets", TARGETS)],
        value=first.mode,
        label="Sliders",
        visible=several,
        elem_id="mode",
    )
    with gr.Column(visible=several) as by_weight:
        weights = [_weight(slider, first.weights[slider.name]) for slider in sliders]
    with gr.Column(visible=not several) as by_target:
        values, autos = zip(*[_target(slider) for slider in sliders], strict=True)
        gr.HTML(f'<small class="explained">{views.Z}</small>', **PLAIN)
    with gr.Row():
        go = gr.Button("Draw" if pictures else "Respond", variant="primary", elem_id="go")
        cancel = gr.Button("Cancel", elem_id="cancel")
    with gr.Row(equal_height=True, elem_id="seeds"):
        seed = _number("Seed", first.seed, 0, MAX_SEED, "seed")
        dice = gr.Button("New seed", elem_id="dice", min_width=110)
        count = _number("How many", first.count, 1, MAX_COUNT, "count")
    refine = gr.Checkbox(
        first.refine,
        label="Refine",
        info=f"Draws up to {REFINE} times more from the same seed, each time correcting by what "
        "was obtained before, and keeps what comes nearest to the targets.",
        elem_id="refine",
    )
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        negative, mapping, sampling = _advanced(handlers, first)
    mode.change(
        lambda chosen: [gr.Column(visible=chosen == each) for each in MODES],
        mode, [by_weight, by_target], **QUIET,
    )  # fmt: skip
    for i, weight in enumerate(weights):
        weight.input(None, weights, weights, js=SHARE % i, **QUIET)
    for value, auto in zip(values, autos, strict=True):
        value.input(None, None, auto, js="() => false", **QUIET)
    dice.click(None, None, seed, js=NEW_SEED, **QUIET).then(None, None, None, js=DRAW, **QUIET)
    sliding = [*weights, *values, *autos]
    return Controls(
        prompt=prompt,
        seed=seed,
        dice=dice,
        refine=refine,
        mode=mode,
        weights=weights,
        values=list(values),
        autos=list(autos),
        go=go,
        cancel=cancel,
        row=[prompt, negative, seed, count, refine, mode, *sliding, mapping, *sampling],
    )


def _advanced(handlers: Handlers, first: Settings) -> tuple[Any, Any, list[Any]]:
    """Negative prompt, mapping, and what can be set of sampling; hidden is what the model lacks."""
    engine, own = handlers.engine, handlers.form.own
    negative = gr.Textbox(
        first.negative_prompt,
        label="Negative prompt",
        placeholder="What to steer away from",
        visible=engine.pictures,
        elem_id="negative",
    )
    mapping = gr.Radio(
        list(MAPPINGS),
        value=engine.adapter.mapping,
        label="From preference to targets",
        visible=len(handlers.sliders) > 1,
        elem_id="mapping",
    )
    sampling = []
    with gr.Row():
        for name in SAMPLING:
            low, high, step = engine.limits(name) if name in own else (0, 1, 1)
            value = own.get(name)
            sampling.append(
                _number(TITLES[name], value, low, high, name, step=step, visible=name in own)
            )
    return negative, mapping, sampling


def _number(
    label: str,
    value: float | None,
    low: float,
    high: float,
    name: str,
    *,
    step: float = 1,
    visible: bool = True,
) -> Any:
    number = gr.Number(
        value, label=label, minimum=low, maximum=high, step=step, min_width=110, elem_id=name,
        visible=visible,
    )  # fmt: skip
    hand_over_number(number)
    return number


def _slider(low: float, high: float, value: float, step: float, **more: Any) -> Any:
    slider = gr.Slider(low, high, value, step=step, buttons=[], **more)
    hand_over_number(slider)
    return slider


def _weight(slider: Slider, value: float) -> Any:
    return _slider(
        0, 100, value, 1, label=f"{slider.name}, %", elem_classes="reward",
        elem_id=f"weight-{slider.name}",
    )  # fmt: skip


def _target(slider: Slider) -> tuple[Any, Any]:
    middle = min(max(0.0, slider.low), slider.high)
    with gr.Group():
        auto = gr.Checkbox(
            True, label=f"{slider.name}: auto, the model fills it in", elem_id=f"auto-{slider.name}"
        )
        value = _slider(
            slider.low, slider.high, middle, STEP, label=f"{slider.name}, z",
            elem_classes="reward", elem_id=f"target-{slider.name}",
        )  # fmt: skip
        gr.HTML(views.strip(slider, middle), elem_classes="under", **PLAIN)
    return value, auto


def _result(pictures: bool) -> Result:
    feed = gr.HTML(html_template="", js_on_load=FEED, elem_id="feed", **PLAIN)
    with gr.Row(equal_height=False, elem_id="looks"):
        with gr.Column(min_width=260, elem_id="shown"):
            response = gr.Textbox(
                label="Response",
                lines=8,
                interactive=False,
                buttons=["copy"],
                elem_id="response",
                visible=not pictures,
            )
            gr.HTML(views.STAGE, elem_id="picture", visible=pictures, **PLAIN)
        with gr.Column(min_width=260, elem_id="measured"):
            line = gr.HTML(views.said(""), elem_id="line", **PLAIN)
            gr.HTML('<p class="said" id="word" role="status"></p>', elem_id="words", **PLAIN)
            scores = gr.HTML(elem_id="scores", **PLAIN)
    gallery = gr.HTML(views.GALLERY, js_on_load=CHOOSE, elem_id="gallery", **PLAIN)
    return Result(feed=feed, response=response, scores=scores, line=line, gallery=gallery)


def _tabs(handlers: Handlers, controls: Controls) -> None:
    if handlers.engine.pictures:
        with gr.Tab("Sweep"):
            _sweep_tab(handlers, controls)
    with gr.Tab("Front"):
        _front_tab(handlers, controls)
    if handlers.engine.pictures:
        with gr.Tab("Image to image"):
            _transform_tab(handlers, controls)


def _line(name: str) -> Any:
    return gr.HTML(views.said(""), elem_id=name, elem_classes="line", **PLAIN)


def _sweep_tab(handlers: Handlers, controls: Controls) -> None:
    names, several = handlers.names, len(handlers.names) > 1
    ways = [*([ALL_WEIGHTS] if several else []), *names]
    along = gr.Radio(ways, value=ways[0], label="Along", elem_id="along")
    across = gr.Radio([NONE], value=NONE, label="Across", visible=several, elem_id="across")
    points = _slider(2, MAX_POINTS, 5, 1, label="Points along each", elem_id="points")
    start = gr.Button(
        "Sweep from where the sliders stand", variant="primary", elem_id="start-sweep"
    )
    line = _line("sweep-line")
    sheet = gr.Image(
        label="Sweep",
        alt_text="Sweep",
        show_label=False,
        format="png",
        interactive=False,
        buttons=["fullscreen"],
        elem_id="sheet",
        visible=False,  # there is none; Gradio's box for nothing has a label that no role goes with
    )
    with gr.Row():
        png, plain, pictures = (
            gr.DownloadButton(f"Download {what}", interactive=False, elem_id=name, min_width=140)
            for name, what in (("png", "PNG"), ("json", "JSON"), ("zip", "pictures"))
        )
    along.change(handlers.directions, [along, across], across, **QUIET)
    gr.on(
        [along.change, across.change],
        handlers.points_slider, [along, across, points], points, **QUIET,
    )  # fmt: skip
    start.click(
        handlers.sweep,
        [along, across, points, *controls.row],
        [sheet, png, plain, pictures, line],
        js=begin("sheet"),
        show_progress="hidden",
        api_name="sweep",
        **WAITING,
    ).then(None, None, None, js=end("sheet"), **QUIET)


def _front_tab(handlers: Handlers, controls: Controls) -> None:
    front, names = handlers.front, handlers.names
    if front is None:
        gr.HTML(views.no_front(), elem_id="front")
        return
    x, y = names[0], names[min(1, len(names) - 1)]
    gr.Markdown("Each point is a preference, at the mean scores that the evaluation found for it.")
    with gr.Row(visible=len(names) > 2):
        pair = [gr.Radio(names, value=name, label=f"{axis} axis")
                for axis, name in (("Horizontal", x), ("Vertical", y))]  # fmt: skip
    chart = gr.HTML(views.chart(front, x, y), js_on_load=CHOOSE, elem_id="front", **PLAIN)
    gr.on(
        [axis.change for axis in pair],
        lambda x, y: views.chart(front, x, y),
        pair, chart, **QUIET,
    )  # fmt: skip
    chart.select(handlers.choose, pair, [chart, controls.mode, *controls.positions], **QUIET).then(
        None, None, None, js=DRAW, **QUIET
    )


def _transform_tab(handlers: Handlers, controls: Controls) -> None:
    with gr.Row(equal_height=False):
        picture = gr.Image(
            label="Drop a picture",
            sources=["upload", "clipboard"],
            elem_id="dropped",
            min_width=220,
            height=280,
        )
        hand_over_path(picture)
        result = gr.Image(
            label="Drawn from it",
            alt_text="Drawn from it",
            show_label=False,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="moved",
            min_width=220,
            visible=False,
        )
    strength = _slider(
        0.1, 1, 0.5, 0.05, label="Strength: how much of it is drawn anew", elem_id="strength"
    )
    start = gr.Button("Draw from this picture", variant="primary", elem_id="start-transform")
    line = _line("moved-line")
    scores = gr.HTML(elem_id="moved-scores", **PLAIN)
    start.click(
        handlers.transform,
        [picture, strength, *controls.row],
        [result, scores, line],
        js=begin("moved"),
        show_progress="hidden",
        api_name="transform",
        **WAITING,
    ).then(None, None, None, js=end("moved"), **QUIET)


def _keep_tab(handlers: Handlers, controls: Controls, result: Result) -> Any:
    """Returns the list of presets, which may have become another since the app was started."""
    if handlers.engine.pictures:
        again = gr.File(
            label="Drop a picture of ours here to draw it again",
            file_types=[".png"],
            height=120,
            elem_id="again",
        )
        hand_over_path(again)
        again.upload(
            handlers.drop,
            again,
            [*controls.row, *result.shown],
            js=begin("picture"),
            show_progress="hidden",
            api_name="drop",
            **WAITING,
        ).then(None, None, None, js=end("picture"), **QUIET)
    with gr.Row(equal_height=True):
        chosen = gr.Dropdown([], value=None, label="Preset", elem_id="preset")
        name = gr.Textbox(label="Name", placeholder="A name to save them by", elem_id="preset-name")
    with gr.Row():
        save = gr.Button("Save settings", elem_id="save-preset", min_width=120)
        remove = gr.Button("Remove preset", elem_id="remove-preset", min_width=120)
    line = _line("preset-line")
    way = gr.Radio(
        [("Command line", "command"), ("Python", "python")],
        value="command", label="Copy settings as", elem_id="copy-way",
    )  # fmt: skip
    copy = gr.Button("Copy", elem_id="copy")
    text = gr.Textbox(label="Copied text", lines=3, interactive=False, elem_id="copied")
    copied = _line("copy-line")
    chosen.input(handlers.use_preset, chosen, [*controls.row, line], **QUIET).then(
        None, None, None, js=DRAW, **QUIET
    )
    save.click(handlers.save_preset, [name, *controls.row], [chosen, line], **QUIET)
    remove.click(handlers.remove_preset, chosen, [chosen, line], **QUIET)
    copy.click(handlers.copy, [way, *controls.row], [text, copied], **QUIET).then(
        None, text, None, js="text => window.ric.copy(text)", **QUIET
    )
    return chosen


def _model_tab(handlers: Handlers) -> None:
    choice = handlers.engine.choice
    model = gr.Textbox(
        choice.name,
        label="Model",
        info=f"A folder, a hub id, or one that comes along: {', '.join(bundled_names())}.",
        elem_id="model",
    )
    adapter = gr.Textbox(
        choice.adapter or "",
        label="Adapter",
        placeholder="The model's own",
        info="A folder or a hub id; empty: the one that belongs to the model.",
        elem_id="adapter",
    )
    load = gr.Button("Load", elem_id="load-model")
    line = _line("model-line")
    loaded = gr.HTML(html_template="", js_on_load=RELOAD, elem_id="loaded", **PLAIN)
    load.click(
        handlers.switch, [model, adapter], [loaded, line], show_progress="hidden",
        api_visibility="private", **WAITING,
    )  # fmt: skip


def _draw(handlers: Handlers, controls: Controls, result: Result, load: Any) -> None:
    """Draw whenever something was set, and once to begin with."""
    moved = [slider.release for slider in (*controls.weights, *controls.values)]
    gr.on(
        [
            *([load] if load else []),
            controls.go.click,
            controls.prompt.submit,
            controls.refine.input,
            *moved,
            *(auto.input for auto in controls.autos),
        ],
        handlers.draw,
        controls.row,
        result.shown,
        js=begin("picture"),
        trigger_mode="multiple",  # the newer takes the place of the older
        show_progress="hidden",
        api_name="draw",
        **WAITING,
    ).then(None, None, None, js=end("picture"), **QUIET)
