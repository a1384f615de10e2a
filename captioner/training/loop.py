"""The run: epochs of teacher forcing, validation by generated captions, checkpoints, and going on after a stop.

A run lives in one folder: `best.safetensors` (by validation BLEU-4), `last.safetensors`, `log.jsonl` (one line an
epoch) and `resume.pt`. On a CPU a run that was killed at any moment and resumed ends with the very tensors of one that
was not: everything random is either derived from the seed, the epoch and the picture, or its state is saved.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captioner.checkpoint import ModelFile, load_model, load_resume, save_model, save_resume
from captioner.datasets.batches import encode_captions, epoch_batches, load_pixels, stack_captions
from captioner.datasets.dataset import Dataset
from captioner.datasets.features import cached_features
from captioner.device import autocast, pick_device, pick_precision
from captioner.encoder import Encoder
from captioner.errors import ModelFileError, OptionError, TrainingError
from captioner.evaluation import Evaluation, evaluate
from captioner.files import write_atomically
from captioner.generation import Caption, caption_features
from captioner.model import CaptionModel, ModelOptions
from captioner.options import SearchOptions, flag
from captioner.text import TOKENISER, Vocabulary
from captioner.training.likelihood import cross_entropy
from captioner.training.resume import StopRequest, random_states, restore_random_states, stop_on_signal
from captioner.training.setup import (
    Given,
    Options,
    build_model,
    build_vocabulary,
    load_start,
    provenance,
    resolve_options,
)

_VALIDATION_BATCH = 64
_SEARCHES = tuple((beam, penalty) for beam in (1, 3, 5) for penalty in (0.0, 0.5, 1.0) if beam > 1 or not penalty)
"""Beam sizes and length penalties that are tried on the validation split when training ends."""


@dataclass
class Progress:
    """Where a run stands: all of it goes into the resume file."""

    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch after those
    loss: float = 0.0  # sums over these steps
    norm: float = 0.0
    best: list[float] = field(default_factory=list)  # Evaluation.rank of the best epoch; none yet ranks lowest
    best_epoch: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """One training run in its folder."""

    def __init__(
        self,
        data: Dataset,
        options: Options,
        vocabulary: Vocabulary,
        model: CaptionModel,
        *,
        output: Path,
        features: Path,
        origin: dict[str, Any],
        device: torch.device,
        report: Callable[[str], None],
    ) -> None:
        """`options.training.precision` is already chosen; `origin` goes into the model file as its provenance."""
        self.data, self.options, self.vocabulary, self.origin = data, options, vocabulary, origin
        self.output, self.device, self.report = output, device, report
        self.model = model.to(device)
        self.progress = Progress()
        training = options.training
        self.train_images, self.val_images = data.split("train"), data.split("val")
        self.captions = encode_captions(self.train_images, vocabulary, max_words=training.max_words)
        self.frozen = training.fine_tune is None
        encoder = list(self.model.encoder.trainable(training.fine_tune))
        decoder = list(self.model.decoder.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                *_groups(decoder, training.learning_rate, training.weight_decay),
                *_groups(encoder, training.encoder_learning_rate, training.weight_decay),
            ]
        )
        self.parameters = [*decoder, *encoder]
        self.steps = math.ceil(len(self.train_images) / training.batch_size)
        self.train_features = self.val_features = torch.empty(0)
        if self.frozen:
            cache = {"folder": features, "precision": training.precision, "workers": training.workers, "report": report}
            self.train_features = cached_features(self.model, self.train_images, **cache)  # type: ignore[arg-type]
            self.val_features = cached_features(self.model, self.val_images, **cache)  # type: ignore[arg-type]

    # --- the run ---------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """Trains to the end, or until someone asks for a stop; True if it reached the end."""
        training = self.options.training
        with stop_on_signal() as stop:
            while self.progress.epoch < training.epochs:
                if self.progress.epoch - self.progress.best_epoch >= training.patience and self.progress.epoch:
                    self.report(f"No better validation score for {training.patience} epochs: stopping early.")
                    break
                started = time.perf_counter()
                if not self._train_epoch(stop):
                    return False
                self._finish_epoch(started)
        return True

    def _train_epoch(self, stop: StopRequest) -> bool:
        """The rest of the present epoch; False if someone asked for a stop, after saving."""
        progress, training = self.progress, self.options.training
        batches = epoch_batches(len(self.train_images), training.batch_size, seed=training.seed, epoch=progress.epoch)
        batches = batches[progress.step :]
        saved = time.perf_counter()
        self.model.train()
        bar = tqdm(
            total=len(self.train_images),
            initial=progress.step * training.batch_size,
            desc=f"epoch {progress.epoch + 1}/{training.epochs}",
            unit="picture",
            leave=False,
            disable=None,  # no bar where standard error is no terminal
        )
        with bar:
            for batch, inputs in zip(batches, self._inputs(batches), strict=True):
                try:
                    loss, norm = self._step(batch, inputs)
                except torch.OutOfMemoryError as error:
                    raise TrainingError(
                        f"{self.device} has too little memory for {len(batch)} pictures a step: lower --batch-size or "
                        "--image-size."
                    ) from error
                progress.step += 1
                progress.loss += loss
                progress.norm += norm
                bar.update(len(batch))
                bar.set_postfix_str(f"loss {progress.loss / progress.step:.3f}", refresh=False)
                if stop or time.perf_counter() - saved > 60 * training.save_minutes:
                    self._save_resume()
                    saved = time.perf_counter()
                if stop:
                    return False
        return True

    def _inputs(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """For each batch its features, or where the encoder learns its pixels."""
        if self.frozen:
            return (self.train_features[batch] for batch in batches)
        training = self.options.training
        augmentation = (training.seed, self.progress.epoch) if training.augment else None
        return load_pixels(
            self.train_images, self.options.image, batches, workers=training.workers, augmentation=augmentation
        )

    def _step(self, batch: Sequence[int], inputs: Tensor) -> tuple[float, float]:
        """One step of the optimizer: the loss in nats a word, and the norm of the gradient before clipping."""
        progress, training = self.progress, self.options.training
        tokens = stack_captions([self.captions[index] for index in batch]).to(self.device)
        rate = learning_rate(
            progress.epoch * self.steps + progress.step, training.epochs * self.steps, warmup=training.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        with autocast(training.precision, self.device):
            inputs = inputs.to(self.device)
            if self.frozen:
                logits, _ = self.model.decoder(inputs.float(), tokens[..., :-1])
            else:
                logits, _ = self.model(inputs, tokens[..., :-1])
            loss = cross_entropy(logits, tokens[..., 1:], smoothing=training.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, training.clip_norm or math.inf)
        values = loss.item(), norm.item()
        if not all(map(math.isfinite, values)):
            names = ", ".join(self.train_images[index].name for index in batch[:5])
            raise TrainingError(
                f"The loss is {values[0]} and its gradient {values[1]} in epoch {progress.epoch + 1}, step "
                f"{progress.step + 1} (pictures {names}, ...): start again with a lower --learning-rate or "
                "--precision float32; the last model is kept."
            )
        self.optimizer.step()
        return values

    def _finish_epoch(self, started: float) -> None:
        """Validates, writes the models and the log, and saves."""
        progress, training = self.progress, self.options.training
        trained = time.perf_counter()
        loss, norm = progress.loss / self.steps, progress.norm / self.steps
        evaluation, captions = self._validate(self.options.search)
        scores = evaluation.summary()
        progress.epoch, progress.step, progress.loss, progress.norm = progress.epoch + 1, 0, 0.0, 0.0
        improved = list(evaluation.rank) > progress.best
        if improved:
            progress.best, progress.best_epoch = list(evaluation.rank), progress.epoch
        seconds = {"train": round(trained - started, 1), "validate": round(time.perf_counter() - trained, 1)}
        entry: dict[str, Any] = {"epoch": progress.epoch, "loss": round(loss, 4), "gradient_norm": round(norm, 4)}
        entry |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "val": scores, "seconds": seconds}
        progress.log.append(entry)
        self._save_models(scores, improved)
        self._save_resume()
        self.report(
            f"epoch {progress.epoch}/{training.epochs}  loss {loss:.3f}  |gradient| {norm:.2f}  "
            f"val BLEU-1 {scores['BLEU-1']:.1f}  BLEU-4 {scores['BLEU-4']:.1f}  CIDEr-D {scores['CIDEr-D']:.1f}  "
            f"({scores['references']:g} references)  exact {scores['exact']:.1f}%  "
            f"distinct {scores['distinct']}/{scores['images']}  "
            f"{seconds['train']:.0f} + {seconds['validate']:.0f} s{'  best' if improved else ''}"
        )
        if evaluation.complaint:
            self.report(f"  {evaluation.complaint}")
        for index in range(0, len(captions), math.ceil(len(captions) / 3)):
            image = self.val_images[index]
            self.report(f"  {image.name}: {captions[index].text}   [{image.captions[0]}]")

    # --- validation ------------------------------------------------------------------------------------------------

    def _validate(self, search: SearchOptions) -> tuple[Evaluation, list[Caption]]:
        """Captions of the validation pictures, by search alone, and their scores."""
        captions: list[Caption] = []
        self.model.eval()
        with tqdm(total=len(self.val_images), desc="validating", unit="picture", leave=False, disable=None) as bar:
            for features in self._validation_features():
                captions += caption_features(self.model.decoder, features, self.vocabulary, search)
                bar.update(len(features))
        return evaluate(self.val_images, [caption.text for caption in captions]), captions

    def _validation_features(self) -> Iterator[Tensor]:
        """Features of the validation pictures, as fast as they can be had."""
        if not self.frozen:
            return self._encode_validation(self.options.training.precision)
        batches = range(0, len(self.val_images), _VALIDATION_BATCH)
        return (self.val_features[i : i + _VALIDATION_BATCH].to(self.device).float() for i in batches)

    @torch.inference_mode()
    def _encode_validation(self, precision: str) -> Iterator[Tensor]:
        order, workers = list(range(len(self.val_images))), self.options.training.workers
        batches = [order[i : i + _VALIDATION_BATCH] for i in range(0, len(order), _VALIDATION_BATCH)]
        for pixels in load_pixels(self.val_images, self.options.image, batches, workers=workers):
            with autocast(precision, self.device):
                features = self.model.encode(pixels.to(self.device))
            yield features.float()

    def choose_search(self) -> Path:
        """Tries the beam sizes and length penalties on the validation split; the best go into `best.safetensors`.

        In float32, as the model will serve: bfloat16 moved BLEU-4 by 0.4 on Flickr8k's 1,000 dev pictures (measured).
        """
        path = self.output / "best.safetensors"
        best = load_model(path, self.device)
        self.model.load_state_dict(best.model.state_dict())
        self.model.eval()
        captions: dict[SearchOptions, list[Caption]] = {
            replace(self.options.search, beam_size=beam, length_penalty=penalty): [] for beam, penalty in _SEARCHES
        }
        self.report("Choosing the search on the validation split.")
        for features in self._encode_validation("float32"):
            for search, found in captions.items():
                found += caption_features(self.model.decoder, features, self.vocabulary, search)
        results = {
            search: evaluate(self.val_images, [caption.text for caption in found]) for search, found in captions.items()
        }
        for search, evaluation in results.items():
            self.report(
                f"  beam {search.beam_size}, length penalty {search.length_penalty}: "
                f"val BLEU-1 {evaluation.scores['BLEU-1']:.2f}, BLEU-4 {evaluation.scores['BLEU-4']:.2f} "
                f"({evaluation.references_each:g} references)"
            )
        search = max(results, key=lambda search: results[search].rank)
        scores = results[search].summary()
        save_model(path, replace(best, search=search, provenance={**best.provenance, "val": scores}))
        self.report(f"Chosen: beam {search.beam_size}, length penalty {search.length_penalty}.")
        return path

    # --- files -----------------------------------------------------------------------------------------------------

    def _save_models(self, scores: dict[str, float], improved: bool) -> None:
        origin = {**self.origin, "epoch": self.progress.epoch, "val": scores}
        file = ModelFile(self.model, self.vocabulary, self.options.search, origin)
        save_model(self.output / "last.safetensors", file)
        if improved:
            save_model(self.output / "best.safetensors", file)
        lines = "".join(json.dumps(entry) + "\n" for entry in self.progress.log)
        write_atomically(self.output / "log.jsonl", lambda part: part.write_text(lines, encoding="utf-8"))

    def _save_resume(self) -> None:
        state = {
            "options": self.options.to_dict(),
            "vocabulary": list(self.vocabulary.words),
            "data": fingerprint(self.data),
            "origin": self.origin,
            "trusts_statistics": self.model.encoder.trusts_statistics,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "random": random_states(),
        }
        save_resume(self.output / "resume.pt", state)

    def restore(self, state: dict[str, Any]) -> None:
        """Puts the run where the resume file left it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        restore_random_states(state["random"])


def _groups(parameters: Sequence[torch.nn.Parameter], peak: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups with their peak learning rate; vectors (biases, norms) do not decay."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = ((matrices, decay), (vectors, 0.0))
    return [{"params": group, "lr": peak, "peak": peak, "weight_decay": weight} for group, weight in groups if group]


def learning_rate(step: int, steps: int, *, warmup: float) -> float:
    """The learning rate at `step` of `steps`, as a share of its peak: a linear rise, then half a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def fingerprint(data: Dataset) -> str:
    """A hash of the names and captions of the training and validation splits, and of the rules that make tokens."""
    digest = hashlib.sha256(TOKENISER.encode())
    for split in ("train", "val"):
        for image in data.split(split):
            digest.update(repr((split, image.name, image.captions)).encode())
    return digest.hexdigest()


def check_choices(data: Dataset, *, given: Given, output: Path, resume: bool, start_from: str | None) -> None:
    """Refuses what `train` would refuse, in a moment: before every picture of a large data set is read.

    Raises OptionError and ModelFileError as `train` does.
    """
    if resume:
        load_resume(output / "resume.pt")
        return
    if output.exists() and any(output.iterdir()):
        raise OptionError(f"{output} already holds a run: continue it with --resume, or choose another --output.")
    start = load_start(start_from)
    options = resolve_options(given, kind=data.kind, start=start)
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(options.encoder, image_size=options.image.size)
    list(encoder.trainable(options.training.fine_tune))


def train(
    data: Dataset,
    *,
    given: Given,
    output: Path,
    features: Path,
    resume: bool = False,
    start_from: str | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: tqdm.write(line, file=sys.stdout),
) -> Path | None:
    """Trains on a checked data set; returns the best model's file, or None if someone asked for a stop.

    `given` holds what the user chose, `features` is the folder for cached features, `start_from` a model file or
    "bundled". Raises OptionError for options that do not fit, ModelFileError for files that do not, and TrainingError
    where the loss is not finite.
    """
    place = pick_device(device)
    check_choices(data, given=given, output=output, resume=resume, start_from=start_from)
    if resume:
        state = load_resume(output / "resume.pt")
        run = _resumed(state, data, given, output=output, features=features, device=place, report=report)
        done, step = run.progress.epoch, run.progress.step
        report(f"Going on in {output} after {done} epochs and {step} steps.")
    else:
        start = load_start(start_from)
        options = resolve_options(given, kind=data.kind, start=start)
        precision = pick_precision(options.training.precision, place)
        options = replace(options, training=replace(options.training, precision=precision))
        torch.manual_seed(options.training.seed)
        vocabulary = start.vocabulary if start else build_vocabulary(data, min_count=options.training.min_count)
        model = build_model(options, vocabulary, start)
        origin = provenance(options, data, start=start)
        run = Run(
            data,
            options,
            vocabulary,
            model,
            output=output,
            features=features,
            origin=origin,
            device=place,
            report=report,
        )
    decoder = sum(parameter.numel() for parameter in run.model.decoder.parameters())
    encoder = sum(parameter.numel() for parameter in run.model.encoder.parameters())
    rows, columns = run.model.encoder.grid
    report(
        f"{run.options.encoder.name} ({encoder / 1e6:.1f} M parameters, {rows}x{columns} grid of "
        f"{run.model.encoder.channels}, {'frozen' if run.frozen else 'learning'}) and {run.options.decoder.cell} with "
        f"{run.options.decoder.attention} attention ({decoder / 1e6:.1f} M), {len(run.vocabulary):,} words, on "
        f"{place} in {run.options.training.precision}."
    )
    if not run.train():
        report(f"Stopped and saved: the same command with --resume goes on from {output}.")
        return None
    if given.get("SearchOptions"):
        return output / "best.safetensors"
    return run.choose_search()


def _resumed(state: dict[str, Any], data: Dataset, given: Given, *, output: Path, **places: Any) -> Run:
    """The run that a resume file holds; raises OptionError where the user asks for something else now."""
    try:
        options = Options.from_dict(state["options"])
        vocabulary = Vocabulary(state["vocabulary"])
        for name, chosen in given.items():
            kept = next(value for value in vars(options).values() if type(value).__name__ == name)
            for option, value in chosen.items():
                if value != getattr(kept, option):
                    raise OptionError(
                        f"{flag(type(kept), option)} is {value} now, but the run in {output} was started with "
                        f"{getattr(kept, option)}: leave it out, or start a new run with another --output."
                    )
        if state["data"] != fingerprint(data):
            raise OptionError(
                f"The data set, or how captions become tokens, is not what the run in {output} was started with: give "
                "the same data set, or start a new run with another --output."
            )
        model = CaptionModel(ModelOptions(options.image, options.encoder, options.decoder, len(vocabulary)))
        model.load_state_dict(state["model"])  # before the run is made: cached features depend on the weights
        model.encoder.trusts_statistics = state["trusts_statistics"]
        run = Run(data, options, vocabulary, model, output=output, origin=state["origin"], **places)
        run.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"{output / 'resume.pt'} does not fit this version of captioner ({error}): start a new run."
        ) from error
    return run
