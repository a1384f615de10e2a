"""The settings beside a photo: which model, and how it searches. It knows Gradio's controls, and no networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from captioner.captioner import Captioner, pick_captioner
from captioner.errors import OptionError
from captioner.options import SearchOptions

METHODS = {"Greedy": "beam", "Beam": "beam", "Diverse": "diverse", "Sampling": "sample"}
"""How the page calls the ways to search, and what `SearchOptions.method` calls them; greedy is a beam of one."""

_SLIDERS = {
    "beam_size": ("Beam size", 1, 10, 1, "How many sentences it follows at a time, or writes."),
    "max_length": ("Longest caption", 1, 50, 1, "In words."),
    "length_penalty": (
        *("Length penalty", 0, 2, 0.1),
        "0 ranks by the probability of the sentence; higher, longer ones win.",
    ),
    "rerank": (
        *("Right to left", 0, 1, 0.05),
        "How much a second decoder, which reads sentences from their end, counts in choosing one.",
    ),
    "diversity": ("Diversity", 0, 5, 0.1, "What it costs to say what an earlier sentence says there."),
    "temperature": ("Temperature", 0.1, 2, 0.05, "Below 1, likely words become likelier; above, rarer."),
    "nucleus": ("Nucleus", 0.05, 1, 0.05, "Only the likeliest words with this much probability together are drawn."),
}
"""The fields of SearchOptions that have a slider: how the page calls them, least and greatest value, step, meaning."""

_EXPLAINED = {
    "Greedy": "Takes the likeliest word each time.",
    "Beam": "Follows several sentences at a time and keeps the most probable.",
    "Diverse": "Writes several sentences, each kept apart from those before it.",
    "Sampling": "Draws each word by chance, as probable as the model holds it.",
}


@dataclass(frozen=True)
class Controls:
    """The controls of one side of the page."""

    model: gr.Radio
    method: gr.Radio
    sliders: list[gr.Slider]
    """In the order of SearchOptions' fields, without `method`."""
    again: gr.Button
    """Draws once more."""
    changed: list[Any]
    """The steps after which the controls are as another model, or another method, wants them: `.then` goes on."""

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `chosen` wants, in its order."""
        return [self.model, self.method, *self.sliders]


def build_settings(captioners: Mapping[str, Captioner], side: str) -> Controls:
    """The controls, as the first model's file says; `side` tells the two sides of the page apart."""
    names = list(captioners)
    captioner = captioners[names[0]]
    model = gr.Radio(names, value=names[0], label="Model", visible=len(names) > 1, elem_id=f"models{side}")
    with gr.Accordion("Advanced", open=False, elem_id=f"advanced{side}", elem_classes="advanced"):
        first = _method(captioner.search)
        method = gr.Radio(list(METHODS), value=first, label="Search", info=_EXPLAINED[first], elem_id=f"method{side}")
        sliders = [
            gr.Slider(low, high, step=step, label=label, info=info)
            for label, low, high, step, info in _SLIDERS.values()
        ]
        for slider, update in zip(sliders, _sliders(captioner, first), strict=True):
            slider.value, slider.maximum, slider.visible = update["value"], update["maximum"], update["visible"]
            slider.buttons = []
        with gr.Row():
            again = gr.Button("Draw again", size="sm", visible=first == "Sampling")
            reset = gr.Button("Reset to the model's defaults", size="sm")

    def begin(name: Any) -> list[Any]:
        """Everything as the model's file says."""
        if name not in list(captioners):  # a program; `chosen` tells it so
            return [gr.skip()] * (2 + len(sliders))
        method = _method(captioners[name].search)
        return [
            gr.update(value=method, info=_EXPLAINED[method]),
            *(gr.update(**update) for update in _sliders(captioners[name], method)),
            gr.update(visible=method == "Sampling"),
        ]

    def show(name: Any, method: Any) -> list[Any]:
        """The controls that matter to a method; their values stay."""
        if name not in list(captioners) or method not in list(METHODS):
            return [gr.skip()] * (2 + len(sliders))
        return [
            gr.update(info=_EXPLAINED[method]),
            *(gr.update(visible=update["visible"]) for update in _sliders(captioners[name], method)),
            gr.update(visible=method == "Sampling"),
        ]

    outputs = [method, *sliders, again]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = gr.on([model.input, reset.click], begin, inputs=model, outputs=outputs, preprocess=False, **quiet)
    shown = method.input(show, inputs=[model, method], outputs=outputs, preprocess=False, **quiet)
    return Controls(model, method, sliders, again, [begun, shown])


def _method(search: SearchOptions) -> str:
    """The page's name for a search."""
    if search.method == "beam":
        return "Beam" if search.beam_size > 1 else "Greedy"
    return "Diverse" if search.method == "diverse" else "Sampling"


def _sliders(captioner: Captioner, method: str) -> list[dict[str, Any]]:
    """Value, greatest value and visibility of each slider, for a model's file and the chosen method."""
    search, reverse = captioner.search, captioner.card.reverse
    several = method != "Greedy"
    visible = {
        "length_penalty": several,
        "beam_size": several,
        "rerank": several and reverse,
        "diversity": method == "Diverse",
        "temperature": method == "Sampling",
        "nucleus": method == "Sampling",
    }
    values = {name: getattr(search, name) for name in _SLIDERS}
    if search.beam_size == 1:  # for whoever goes on to another method
        values["beam_size"] = SearchOptions().beam_size
    return [
        {"value": values[name], "maximum": max(most, values[name]), "visible": visible.get(name, True)}
        for name, (_, _, most, _, _) in _SLIDERS.items()
    ]


def chosen(captioners: Mapping[str, Captioner], values: tuple[Any, ...]) -> tuple[Captioner, SearchOptions]:
    """The model and its search, from whatever the controls, or a program in their place, sent: `Controls.inputs`.

    Raises OptionError in the page's own words.
    """
    name, method, *numbers = values
    captioner = pick_captioner(captioners, name)
    try:
        beam_size, max_length, *shares = numbers
        length_penalty, rerank, diversity, temperature, nucleus = map(float, shares)
        options = SearchOptions(
            beam_size=1 if method == "Greedy" else int(beam_size),
            max_length=int(max_length),
            length_penalty=length_penalty,
            rerank=rerank,
            method=METHODS[method],
            diversity=diversity,
            temperature=temperature,
            nucleus=nucleus,
        )
        options.check_model(reverse=captioner.card.reverse)
    except OptionError as error:
        label = _SLIDERS[error.field][0] if error.field in _SLIDERS else None
        raise OptionError(error.told(label)) from error
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise OptionError("The settings are numbers in their sliders' ranges: set them again.") from error
    return captioner, options
