"""One training run in its folder: epochs, validation by generated captions, checkpoints.

The folder holds `best.safetensors` (by validation CIDEr-D), `last.safetensors`, `log.jsonl` (one line an epoch) and
`resume.pt`. On a CPU a run that was killed at any moment and resumed ends with the very tensors of one that was not:
everything random is either derived from the seed, the epoch and the picture, or its state is saved.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captioner.checkpoint import ModelFile, load_model, save_model, save_resume
from captioner.datasets.dataset import Dataset
from captioner.errors import TrainingError
from captioner.evaluation import Evaluation
from captioner.files import write_atomically
from captioner.model import CaptionModel
from captioner.text import Vocabulary
from captioner.training.batches import Lessons, encode_captions, epoch_batches, load_pixels
from captioner.training.features import cached_features
from captioner.training.objectives import CrossEntropy, Objective, SelfCritical
from captioner.training.resume import StopRequest, fingerprint, random_states, restore_random_states, stop_on_signal
from captioner.training.self_critical import references_of
from captioner.training.setup import Options
from captioner.training.step import Learner, learning_rate, make_optimizer, take_step
from captioner.training.validation import choose_search, validate


@dataclass
class Progress:
    """Where a run stands: all of it goes into the resume file."""

    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch after those
    sums: dict[str, float] = field(default_factory=dict)  # of what these steps measured
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
        teachers: Mapping[str, ModelFile],
        output: Path,
        features: Path,
        origin: dict[str, Any],
        device: torch.device,
        report: Callable[[str], None],
    ) -> None:
        """`options.training.precision` is already chosen; `origin` goes into the model file as its provenance.

        The `teachers` read features of their own: of the same pictures, as their files say that they see them, never
        varied.
        """
        self.data, self.options, self.vocabulary, self.origin = data, options, vocabulary, origin
        self.output, self.device, self.report = output, device, report
        self.model = model.to(device)
        self.teacher_names = list(teachers)
        self.progress = Progress()
        training = options.training
        reverse = training.direction == "right-to-left"
        self.decoder = self.model.reverse if reverse and self.model.reverse else self.model.decoder
        captions = encode_captions(data.split("train"), vocabulary, max_words=training.max_words, reverse=reverse)
        learnt = [(image, ids) for image, ids in zip(data.split("train"), captions, strict=True) if ids]
        self.train_images = [image for image, _ in learnt]  # without those that no word is said of
        captions = [ids for _, ids in learnt]
        self.val_images = data.split("val")
        cache = {"folder": features, "precision": training.precision, "workers": training.workers, "report": report}
        objective: Objective
        if training.objective == "self-critical":
            references = references_of(self.train_images, reverse=reverse)
            self.lessons = Lessons(self.train_images, captions, references=references)
            objective = SelfCritical(references, vocabulary, training, max_length=options.search.max_length)
        else:
            models = [file.model.to(device).eval() for file in teachers.values()]
            theirs = [cached_features(model, self.train_images, **cache) for model in models]  # type: ignore[arg-type]
            self.lessons = Lessons(self.train_images, captions, teachers=theirs)
            objective = CrossEntropy(training, [model.decoder for model in models])
        # Features are kept where every epoch would compute the same ones.
        self.cached = training.fine_tune is None and not training.augment
        self.model.encoder.trainable(training.fine_tune)
        self.learner = Learner(self.decoder, objective, training.precision, model=self.model)
        self.optimizer = make_optimizer(self.learner, training)
        self.steps = math.ceil(len(self.train_images) / training.batch_size)
        self.train_features, self.val_features = torch.empty(0), None
        if self.cached:
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
        return not stop

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
                    measured = self._step(batch, inputs)
                except torch.OutOfMemoryError as error:
                    raise TrainingError(
                        f"{self.device} has too little memory for {len(batch)} pictures a step: lower --batch-size or "
                        "--image-size."
                    ) from error
                progress.step += 1
                for name, value in measured.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value
                bar.update(len(batch))
                bar.set_postfix_str(f"loss {progress.sums['loss'] / progress.step:.3f}", refresh=False)
                if stop or time.perf_counter() - saved > 60 * training.save_minutes:
                    self._save_resume()
                    saved = time.perf_counter()
                if stop:
                    return False
        return True

    def _inputs(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """For each batch its features, or where they change with the encoder or the picture its pixels."""
        if self.cached:
            return (self.train_features[batch] for batch in batches)
        training = self.options.training
        augmentation = (training.seed, self.progress.epoch) if training.augment else None
        return load_pixels(
            self.train_images, self.options.image, batches, workers=training.workers, augmentation=augmentation
        )

    def _step(self, batch: Sequence[int], inputs: Tensor) -> dict[str, float]:
        """One step of the optimizer: what the log wants to know of it."""
        training = self.options.training
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        parts = [(inputs, self.lessons.batch(batch))]
        measured = take_step(self.learner, self.optimizer, parts, clip_norm=training.clip_norm)
        if not all(map(math.isfinite, measured.values())):
            names = ", ".join(self.train_images[index].name for index in batch[:5])
            raise TrainingError(
                f"The loss is {measured['loss']} and its gradient {measured['gradient_norm']} in epoch "
                f"{self.progress.epoch + 1}, step {self.progress.step + 1} (pictures {names}, ...): start again with a "
                "lower --learning-rate or --precision float32; the last model is kept."
            )
        return measured

    def _learning_rate(self) -> float:
        """The present learning rate, as a share of its peak."""
        training, done = self.options.training, self.progress.epoch * self.steps + self.progress.step
        return learning_rate(done, training.epochs * self.steps, warmup=training.warmup)

    def _finish_epoch(self, started: float) -> None:
        """Validates, writes the models and the log, and saves."""
        progress, training = self.progress, self.options.training
        trained = time.perf_counter()
        means = {name: round(value / self.steps, 4) for name, value in progress.sums.items()}
        evaluation, texts = self._validate()
        scores = evaluation.summary()
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        improved = list(evaluation.rank) > progress.best
        if improved:
            progress.best, progress.best_epoch = list(evaluation.rank), progress.epoch
        seconds = {"train": round(trained - started, 1), "validate": round(time.perf_counter() - trained, 1)}
        entry: dict[str, Any] = {"epoch": progress.epoch, **means}
        entry |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "val": scores, "seconds": seconds}
        progress.log.append(entry)
        self._save_models(scores, improved)
        self._save_resume()
        learnt = f"loss {means['loss']:.3f}  |gradient| {means['gradient_norm']:.2f}"
        if "reward" in means:  # its loss says nothing
            learnt = f"reward {means['reward']:.1f}  words {means['sampled_words']:.1f}"
        self.report(
            f"epoch {progress.epoch}/{training.epochs}  {learnt}  "
            f"val BLEU-1 {scores['BLEU-1']:.1f}  BLEU-4 {scores['BLEU-4']:.1f}  CIDEr-D {scores['CIDEr-D']:.1f}  "
            f"({scores['references']:g} references)  exact {scores['exact']:.1f}%  "
            f"distinct {scores['distinct']}/{scores['images']}  "
            f"{seconds['train']:.0f} + {seconds['validate']:.0f} s{'  best' if improved else ''}"
        )
        if evaluation.complaint:
            self.report(f"  {evaluation.complaint}")
        for index in range(0, len(texts), math.ceil(len(texts) / 3)):
            image = self.val_images[index]
            self.report(f"  {image.name}: {texts[index]}   [{image.captions[0]}]")

    # --- validation ------------------------------------------------------------------------------------------------

    def _validate(self) -> tuple[Evaluation, list[str]]:
        """Captions of the validation pictures, by search alone, and their scores.

        A right-to-left decoder is judged by what it is for: the captions that the two directions choose together.
        """
        search = self.options.search
        if self.decoder is self.model.reverse and not search.rerank:
            search = replace(search, rerank=0.5)
        precision = self.options.training.precision
        return validate(
            self.model, self.val_images, self.vocabulary, search, features=self.val_features, precision=precision
        )

    def choose_search(self, fixed: Mapping[str, Any]) -> Path:
        """Chooses the search of `best.safetensors` on the validation split, but for the fields that are `fixed`."""
        path = self.output / "best.safetensors"
        save_model(path, choose_search(load_model(path, self.device), self.val_images, fixed, self.report))
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
            "teachers": self.teacher_names,
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
