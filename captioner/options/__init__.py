"""Every option: its default, its rule and its help text, in one place.

The command lines are built from these dataclasses (`add_arguments`), model files carry them (`to_dict`, `from_dict`),
and each checks itself when it is made. Nothing here imports torch, so that `--help` answers at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captioner.options.fields import (
    Checked,
    add_arguments,
    check_groups,
    flag,
    from_dict,
    given,
    is_a,
    merged,
    option,
    to_dict,
    wrong,
)

__all__ = [
    "ATTENTIONS",
    "BACKENDS",
    "BACKEND_HELP",
    "CELLS",
    "DEVICES_HELP",
    "DIRECTIONS",
    "ENCODER_WEIGHTS",
    "FITS",
    "GROUPS",
    "METHODS",
    "MODELS",
    "MODEL_HELP",
    "MOST_WORK",
    "OBJECTIVES",
    "PRECISIONS",
    "PRECISION_HELP",
    "PRESETS",
    "DecoderOptions",
    "EncoderOptions",
    "ImageOptions",
    "SearchOptions",
    "TrainingOptions",
    "VideoOptions",
    "WebOptions",
    "add_arguments",
    "check_groups",
    "flag",
    "from_dict",
    "given",
    "merged",
    "to_dict",
    "upgraded",
    "wrong",
]

FITS = ("squash", "crop", "pad")
CELLS = ("rnn", "lstm", "gru")
ATTENTIONS = ("additive", "dot", "none")
OBJECTIVES = ("likelihood", "self-critical")
METHODS = ("beam", "diverse", "sample")
DIRECTIONS = ("left-to-right", "right-to-left")
ENCODER_WEIGHTS = ("imagenet", "bundled", "none")
PRESETS = ("everyday", "flickr8k", "flickr8k-fast", "coco")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BACKENDS = ("auto", "torch", "onnx")
MODELS = ("accurate", "fast")
"""Names of the models that come with the package, the default first."""

MODEL_HELP = f"a bundled model ({', '.join(MODELS)}) or a model file (./{MODELS[0]} is a file); default: {MODELS[0]}"
PRECISION_HELP = (
    "float32, bfloat16, float16, or auto: bfloat16 where the processor multiplies in it, float16 on GPUs without"
)
BACKEND_HELP = "what computes: torch, onnx (ONNX Runtime, without torch), or auto: torch where it is installed"
DEVICES_HELP = "auto, cpu, cuda, cuda:N or mps; auto takes a GPU where there is one"


@dataclass(frozen=True)
class ImageOptions(Checked):
    """How a picture becomes the encoder's input."""

    fit: str = option("squash", "how a picture fills the square: squash it, crop its middle, or pad it", choices=FITS)
    size: int = option(
        224, "side of the square the encoder sees, in pixels", minimum=16, maximum=2048, flag="image-size"
    )
    detail: int | None = option(
        None,
        "reduce pictures to this side first: a model that learnt from small copies sees photos as sharp as those",
        minimum=16,
        maximum=2048,
    )
    interpolation: str = option("bilinear", "resampling filter", choices=("bilinear", "bicubic"), hidden=True)
    mean: tuple[float, float, float] = option((0.485, 0.456, 0.406), "subtracted from RGB in 0..1", hidden=True)
    std: tuple[float, float, float] = option((0.229, 0.224, 0.225), "RGB in 0..1 is divided by it", hidden=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("mean", self.mean), ("std", self.std)):
            three = isinstance(value, tuple) and len(value) == 3 and all(is_a(part, float) for part in value)
            if not three or not all(map(math.isfinite, value)) or (name == "std" and min(value) <= 0):
                above = " above 0" if name == "std" else ""
                raise wrong(type(self), name, f"is {value!r}", f"it must be a tuple of three finite numbers{above}")

    @property
    def enough(self) -> int:
        """Pixels a side that are enough of a large picture: twice what is kept, so that a filter has some to average.

        The result is within 0.2 of 255 of the full decoding on average. A 12-megapixel JPEG takes a sixth of the time
        (measured); COCO's 640x480 are decoded in full either way.
        """
        return 2 * (self.detail or self.size)


@dataclass(frozen=True)
class EncoderOptions(Checked):
    """Which network looks at the picture, and where it is cut."""

    name: str = option("mobilenet_v2", "a torchvision CNN by its torchvision name", flag="encoder")
    stage: str | None = option(None, "cut the network after this stage (default: its last)", flag="encoder-stage")


@dataclass(frozen=True)
class DecoderOptions(Checked):
    """The network that writes the words."""

    cell: str = option("lstm", "the recurrent cell", choices=CELLS)
    attention: str = option(
        "dot", "how the decoder looks at the features; none: they only start it", choices=ATTENTIONS
    )
    heads: int = option(8, "heads of dot attention; they divide the hidden size", minimum=1, maximum=64)
    normalise: bool = option(True, "the features of each grid cell are normalised first (layer norm)")
    layers: int = option(1, "recurrent layers", minimum=1, maximum=8)
    embedding_size: int = option(512, "width of the word embeddings", minimum=1, maximum=8192)
    hidden_size: int = option(512, "width of the recurrent state and of attention", minimum=1, maximum=8192)
    dropout: float = option(0.5, "share of activations dropped in training", minimum=0.0, maximum=0.95)
    tied: bool = option(True, "the output layer shares the word embeddings")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention == "dot" and self.hidden_size % self.heads:
            reason = f"is {self.heads}, not a divisor of the hidden size, {self.hidden_size}"
            raise wrong(DecoderOptions, "heads", reason, "choose one")


@dataclass(frozen=True)
class SearchOptions(Checked):
    """How the sentence is found."""

    beam_size: int = option(3, "hypotheses kept for each picture; 1 is greedy search", minimum=1, maximum=100)
    max_length: int = option(30, "most words in a caption", minimum=1, maximum=200)
    length_penalty: float = option(
        0.0,
        "hypotheses are ranked by log-probability / words**penalty; 0: the most probable, higher: longer",
        minimum=0.0,
        maximum=5.0,
    )
    rerank: float = option(
        0.0,
        "share of the right-to-left decoder in ranking the finished hypotheses; 0: it is not asked",
        minimum=0.0,
        maximum=1.0,
    )

    method: str = option(
        "beam",
        "beam search; diverse: greedy searches that keep apart; sample: words are drawn. The beam size says how many",
        choices=METHODS,
        flag="search",
    )
    diversity: float = option(
        1.0,
        "what a word costs, in log-probability, that an earlier search took at the same place (diverse only)",
        minimum=0.0,
        maximum=100.0,
    )
    temperature: float = option(
        1.0,
        "log-probabilities are divided by it in drawing words (sample only)",
        minimum=0.05,
        maximum=10.0,
        flag="search-temperature",
    )
    nucleus: float = option(
        1.0,
        "words are drawn from the most probable ones that have this probability together (sample only)",
        minimum=0.01,
        maximum=1.0,
    )

    def check_model(self, *, reverse: bool) -> None:
        """Raises OptionError where the right-to-left decoder of a model that has none (`reverse`) is to be asked."""
        if self.rerank and not reverse:
            reason = f"is {self.rerank}, but the model has no right-to-left decoder"
            raise wrong(SearchOptions, "rerank", reason, "set it to 0, or choose a model that has one")


@dataclass(frozen=True)
class VideoOptions(Checked):
    """Where a clip is looked at."""

    shortest: float = option(
        1.0,
        "seconds a scene lasts at least; a shorter one is joined to what follows",
        minimum=0.1,
        maximum=3600.0,
        flag="shortest-scene",
    )
    longest: float = option(
        5.0,
        "seconds after which a shot that goes on is seen again",
        minimum=0.1,
        maximum=3600.0,
        flag="longest-gap",
    )
    max_minutes: float = option(60.0, "minutes a clip lasts at most; a longer one is refused", minimum=0.1, maximum=1e5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest < self.shortest:
            reason = f"is {self.longest}, less than the shortest scene, {self.shortest}"
            raise wrong(VideoOptions, "longest", reason, "make it longer, or the shortest scene shorter")


@dataclass(frozen=True)
class TrainingOptions(Checked):
    """How the model learns."""

    objective: str = option(
        "likelihood",
        "what is learnt: to make the references probable, or (from a trained model on) to score high in CIDEr-D",
        choices=OBJECTIVES,
    )
    direction: str = option(
        "left-to-right",
        "which decoder learns: the one that writes, or a second one that reads captions from their end and re-ranks",
        choices=DIRECTIONS,
    )
    samples: int = option(5, "captions drawn for each picture (self-critical only)", minimum=2, maximum=100)
    temperature: float = option(
        0.6,
        "logits are divided by it in drawing (self-critical only); 1: the model as it is",
        minimum=0.05,
        maximum=10.0,
    )
    epochs: int = option(12, "passes over the training pictures", minimum=1, maximum=10_000)
    batch_size: int = option(
        32, "pictures a step, of all processes, each with all its captions", minimum=1, maximum=65_536
    )
    accumulate: int = option(
        1, "parts of a step that go through the model one after the other: less memory, the same step", minimum=1
    )
    learning_rate: float = option(1e-3, "peak learning rate of the decoder", minimum=0.0, maximum=10.0)
    encoder_weights: str = option(
        "imagenet",
        "what the encoder starts from: torchvision's ImageNet weights, those of a bundled model that has it, or none",
        choices=ENCODER_WEIGHTS,
    )
    new_decoder: bool = option(
        False, "take no more than the encoder of the model to start from: decoder and vocabulary begin anew"
    )
    fine_tune: str | None = option(
        None, "train the encoder too, from this stage on; 'all' trains every layer (default: frozen)"
    )
    encoder_learning_rate: float = option(1e-4, "peak learning rate of the encoder", minimum=0.0, maximum=10.0)
    warmup: float = option(0.03, "share of all steps over which the learning rate rises", minimum=0.0, maximum=1.0)
    weight_decay: float = option(0.01, "AdamW's weight decay", minimum=0.0, maximum=10.0)
    teacher_share: float = option(
        0.7,
        "share of the teachers in what is learnt (with --teachers); the references have the rest",
        minimum=0.0,
        maximum=1.0,
    )
    label_smoothing: float = option(0.1, "probability spread over the other words", minimum=0.0, maximum=0.9)
    clip_norm: float = option(5.0, "gradients are scaled down to this norm; 0: never", minimum=0.0)
    augment: bool = option(False, "random crops and colours (never a flip); the encoder runs in every step")
    min_count: int | None = option(
        None,
        "a word enters the vocabulary after this many uses in training captions (default: by their number, 1 for 500 "
        "captions or fewer, 5 from 20,000 on)",
        minimum=1,
    )
    max_words: int = option(50, "training captions are cut after this many words", minimum=1, maximum=1000)
    patience: int = option(5, "stop after this many epochs without a better validation score", minimum=1)
    precision: str = option("auto", PRECISION_HELP, choices=PRECISIONS)
    workers: int = option(2, "threads that read pictures while the encoder runs", minimum=0, maximum=256)
    save_minutes: float = option(5.0, "minutes between saves inside an epoch", minimum=0.0)
    seed: int = option(1, "seed of everything random", minimum=0)


MOST_WORK = 20_000
"""Pictures x beam size x words of one request to the server: 64 pictures, as the bundled models search; seconds."""
GROUPS: dict[str, Any] = {
    "image": ImageOptions,
    "encoder": EncoderOptions,
    "decoder": DecoderOptions,
    "training": TrainingOptions,
    "search": SearchOptions,
}
"""The options of a training run, by the names that recipes, model files and resume files call them."""


@dataclass(frozen=True)
class WebOptions(Checked):
    """Where the page is served, to whom, and with which example photos."""

    host: str = option("127.0.0.1", "address to serve; 0.0.0.0 lets other machines in")
    port: int = option(7860, "port to serve; 0 takes a free one", minimum=0, maximum=65_535)
    auth: str | None = option(
        None, "ask everybody for this name and password (HTTP basic authentication)", metavar="NAME:PASSWORD"
    )
    auth_file: str | None = option(
        None,
        "file with a NAME:PASSWORD on each line, hidden from lists of processes; or the variable CAPTIONER_AUTH",
        metavar="FILE",
    )
    page: bool = option(True, "serve the page; without it, the API alone")
    access_log: bool = option(False, "write a line for each request: who, what, how long; not its contents")
    root_path: str | None = option(
        None,
        "where a proxy shows this server: a path (/captioner), or the whole address (https://example.com/captioner)",
        metavar="PATH|ADDRESS",
    )
    allow_host: str | None = option(
        None,
        "names by which this server is visited, beside its own address; * stands for any letters (*.example.com)",
        metavar="NAME[,NAME]",
    )
    allow_origin: str | None = option(
        None, "sites whose pages may call this server (CORS): https://example.com", metavar="ORIGIN[,ORIGIN]"
    )
    embed: str | None = option(
        None, "sites whose pages may show this one in a frame: https://example.com", metavar="ORIGIN[,ORIGIN]"
    )
    most_work: int = option(
        MOST_WORK, "most that one request may ask for, as pictures x beam size x words", minimum=1, maximum=10**9
    )
    most_request: int = option(200, "most megabytes of one request to the API", minimum=1, maximum=10_000)
    most_upload: int = option(2_000, "most megabytes that one visitor uploads to the page in an hour", minimum=1)
    most_uploads: int = option(10_000, "most megabytes of uploads on the disk, of all visitors", minimum=1)
    examples: str | None = option(
        None, "folder with example photos of your own (default: the ones that come with Gradio)", metavar="FOLDER"
    )


def upgraded(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of options in a file of any version as today's: earlier decoders did not normalise features."""
    return {**groups, "decoder": {"normalise": False, **groups["decoder"]}}
