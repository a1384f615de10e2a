"""How a run goes: epochs of steps, validation by generated captions after each, checkpoints.

Its folder holds the best model (by validation CIDEr-D), the last one, a log, a page that shows it, and a resume file.
On a CPU a run that was killed at any moment and resumed ends with the very tensors of one that was not: everything
random is either derived from the seed, the epoch and the picture, or its state is saved.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.checkpoint import ModelFile, load_model, save_model, save_resume
from captioner.datasets.dataset import Dataset
from captioner.errors import TrainingError
from captioner.evaluation import Evaluation
from captioner.files import write_atomically
from captioner.telling import OUT, Telling
from captioner.training import advice
from captioner.training.batches import Lessons, encode_captions, epoch_batches, load_pixels, shards_of
from captioner.training.events import write_events
from captioner.training.features import cached_features
from captioner.training.objectives import CrossEntropy, Objective, SelfCritical
from captioner.training.plan import Plan, fitting
from captioner.training.processes import ALONE, Processes
from captioner.training.progress import Progress, describe, tell_epoch
from captioner.training.report import write_report
from captioner.training.resume import StopRequest, fingerprint, random_states, restore_random_states, stop_on_signal
from captioner.training.self_critical import references_of
from captioner.training.step import Learner, learning_rate, make_optimizer, take_step
from captioner.training.validation import choose_search, validate


def run(
    plan: Plan, data: Dataset, *, features: Path, telling: Telling = OUT, processes: Processes = ALONE
) -> Path | None:
    """Trains as planned and chooses the best model's search; its file, or None if someone asked for a stop.

    `data` is the plan's data set after the check of its pictures, `features` the folder for cached features. Raises
    OptionError and ModelFileError where a run that goes on does not fit, and TrainingError where the loss is not finite
    or the memory too small. Of several processes all come here, and the leader alone writes.
    """
    best = train(plan, data, features=features, telling=telling, processes=processes)
    if best is not None and processes.leads:
        file, sound = choose_search(load_model(best, plan.device), data.split("val"), plan.fixed, telling)
        save_model(best, file)
        for line in advice.after(file.provenance, best=str(best), sound=sound):
            telling.say(line)
    processes.wait()
    return best


def train(
    plan: Plan, data: Dataset, *, features: Path, telling: Telling = OUT, processes: Processes = ALONE
) -> Path | None:
    """`run`, but for the search: that is enough for a model that another run goes on from, and saves minutes."""
    this = _Run(plan.over(data), features, telling, processes)
    if plan.state is not None:
        telling.say(
            f"Going on in {plan.folder.path} after {this.progress.epoch} epochs and {this.progress.step} steps."
        )
        this.catch_up()
    telling.say(describe(plan, this.model.encoder, this.decoder))
    if plan.state is None and (few := advice.before(this.origin)):
        telling.say(few)
    if plan.coverage is not None and plan.coverage.known < plan.coverage.total:
        telling.say(plan.coverage.describe())
    with stop_on_signal() as stop:
        while not this.is_over():
            started = time.perf_counter()
            if not this.train_epoch(stop):
                break
            this.finish_epoch(started)
    (stopped,) = processes.any(bool(stop))  # which all of them say when the leader has written
    if stopped:
        telling.say(f"Stopped and saved: the same command with --resume goes on from {plan.folder.path}.")
        return None
    return plan.folder.best


class _Run:
    """A plan being carried out."""

    def __init__(self, plan: Plan, features: Path, telling: Telling, processes: Processes) -> None:
        self.plan, self.telling, self.training = plan, telling, plan.options.training
        self.processes = processes
        processes.together(lambda: processes.check_shares(self.training.batch_size, self.training.accumulate))
        self.progress = Progress()
        self.origin, self.fingerprint = plan.provenance(), fingerprint(plan.data)
        torch.manual_seed(self.training.seed)
        self.model = plan.model()
        self.decoder = self.model.decoder
        if self.training.direction == "right-to-left" and self.model.reverse is not None:
            self.decoder = self.model.reverse
        self.model.encoder.trainable(self.training.fine_tune)
        self.val_images = plan.data.split("val")
        self.cache: dict[str, Any] = {"folder": features, "precision": self.training.precision}
        self.cache |= {"workers": self.training.workers, "telling": telling, "processes": processes}
        self.lessons, objective = self._teaching()
        self.steps = math.ceil(len(self.lessons.images) / self.training.batch_size)
        self.learner = Learner(self.decoder, objective, self.training.precision, model=self.model)
        self.optimizer = make_optimizer(self.learner, self.training)
        self.mover = processes.parallel(self.learner)
        self.scaler = torch.amp.GradScaler(plan.device.type, enabled=self.training.precision == "float16")
        if not processes.leads:  # dropout of its own
            torch.manual_seed(self.training.seed + 1_000_003 * processes.rank)
        self.train_features: Tensor | None = None
        self.val_features: Tensor | None = None
        if self.training.fine_tune is None and not self.training.augment:  # every epoch would compute the same ones
            self.train_features = cached_features(self.model, self.lessons.images, **self.cache)
            self.val_features = cached_features(self.model, self.val_images, **self.cache)
        self.shards = shards_of(self.lessons.images) if self.train_features is None else []
        if plan.state is not None:
            with fitting(plan.folder):
                self.optimizer.load_state_dict(plan.state["optimizer"])
                self.progress = Progress(**plan.state["progress"])
                self.scaler.load_state_dict(plan.state.get("scaler", {}))
                others = plan.state.get("others_random", [])
                if processes.leads:
                    restore_random_states(plan.state["random"])
                elif processes.rank <= len(others):
                    restore_random_states(others[processes.rank - 1])

    def _teaching(self) -> tuple[Lessons, Objective]:
        """What the training pictures have to teach, and what is learnt from it."""
        plan, training = self.plan, self.training
        reverse = training.direction == "right-to-left"
        images = plan.data.split("train")
        captions = encode_captions(images, plan.vocabulary, max_words=training.max_words, reverse=reverse)
        learnt = [(image, ids) for image, ids in zip(images, captions, strict=True) if ids]
        lessons = Lessons([image for image, _ in learnt], [ids for _, ids in learnt])
        if training.objective == "self-critical":
            references = references_of(lessons.images, reverse=reverse)
            max_length = plan.options.search.max_length
            objective = SelfCritical(references, plan.vocabulary, training, max_length=max_length)
            return replace(lessons, references=references), objective
        # Teachers see the pictures in their own way, and never varied.
        teachers = [file.model.to(plan.device).eval() for file in plan.teachers.values()]
        theirs = [cached_features(teacher, lessons.images, **self.cache) for teacher in teachers]
        return replace(lessons, teachers=theirs), CrossEntropy(training, [teacher.decoder for teacher in teachers])

    def is_over(self) -> bool:
        """No epoch is left, or the last ones made nothing better."""
        progress, training = self.progress, self.training
        if progress.epoch >= training.epochs:
            return True
        over = progress.epoch > 0 and progress.epoch - progress.best_epoch >= training.patience
        if over:
            self.telling.say(f"No better validation score for {training.patience} epochs: stopping early.")
        return over

    def train_epoch(self, stop: StopRequest) -> bool:
        """The rest of the present epoch; False if someone asked for a stop, after saving."""
        progress, training, count = self.progress, self.training, len(self.lessons.images)
        how: dict[str, Any] = {"seed": training.seed, "epoch": progress.epoch, "shards": self.shards}
        batches = epoch_batches(count, training.batch_size, processes=self.processes.count, **how)[progress.step :]
        # The last batch may have fewer pictures than there are processes: one without takes part in the step with any.
        mine = [self.processes.share(batch) or batch[:1] for batch in batches]
        saved = time.perf_counter()
        self.model.train()
        what, done = f"epoch {progress.epoch + 1}/{training.epochs}", progress.step * training.batch_size
        with self.telling.bar(count, "picture", what, done=done) as bar:
            for batch, places, inputs in zip(batches, mine, self._inputs(mine), strict=True):
                counts = self.processes.rank < len(batch)
                for name, value in self._step(places, inputs, counts=counts).items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value
                progress.step += 1
                bar.update(len(batch))
                bar.set_postfix_str(f"loss {progress.sums['loss'] / progress.step:.3f}", refresh=False)
                due = time.perf_counter() - saved > 60 * training.save_minutes
                stopping, saving = self.processes.any(bool(stop), due)
                if stopping or saving:
                    self._save_resume()
                    saved = time.perf_counter()
                if stopping:
                    return False
        return True

    def _inputs(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """For each batch its features, or where they change with the encoder or the picture its pixels."""
        if self.train_features is not None:
            return map(self.train_features.__getitem__, batches)
        augmentation = (self.training.seed, self.progress.epoch) if self.training.augment else None
        images, workers = self.lessons.images, self.training.workers
        return load_pixels(images, self.plan.options.image, batches, workers=workers, augmentation=augmentation)

    def _step(self, places: Sequence[int], inputs: Tensor, *, counts: bool) -> dict[str, float]:
        """One step of the optimizer with this process's pictures: what the log wants to know of it."""
        progress, training = self.progress, self.training
        done = progress.epoch * self.steps + progress.step
        rate = learning_rate(done, training.epochs * self.steps, warmup=training.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        size = math.ceil(len(places) / training.accumulate)
        cuts = range(0, len(places), size)
        batches = [
            self.lessons.batch(places[cut : cut + size], seed=training.seed, epoch=progress.epoch) for cut in cuts
        ]
        parts = zip(torch.split(inputs, size), batches, strict=True)
        how: dict[str, Any] = {"processes": self.processes, "counts": counts, "scaler": self.scaler}
        try:
            measured = take_step(self.mover, self.optimizer, parts, clip_norm=training.clip_norm, **how)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{self.plan.device} has too little memory for {size} pictures at a time: raise --accumulate, which "
                "changes nothing else, or lower --batch-size or --image-size."
            ) from error
        if not all(map(math.isfinite, measured.values())):
            raise TrainingError(
                f"The loss is {measured['loss']} and its gradient {measured['gradient_norm']} in epoch "
                f"{progress.epoch + 1}, step {progress.step + 1} (pictures {', '.join(batches[0].names[:5])}, ...): "
                "start again with a lower --learning-rate or --precision float32; the last model is kept."
            )
        return measured

    def finish_epoch(self, started: float) -> None:
        """Validates, writes the models and the log, and saves."""
        progress = self.progress
        trained = time.perf_counter()
        means = {name: round(value / self.steps, 4) for name, value in progress.sums.items()}
        evaluation, texts = self._validate()
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        improved = list(evaluation.rank) > progress.best
        if improved:
            progress.best, progress.best_epoch = list(evaluation.rank), progress.epoch
        entry: dict[str, Any] = {"epoch": progress.epoch, **means}
        entry |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "val": evaluation.summary()}
        entry["seconds"] = {"train": round(trained - started, 1), "validate": round(time.perf_counter() - trained, 1)}
        samples = [(self.val_images[at], texts[at]) for at in range(0, len(texts), math.ceil(len(texts) / 3))]
        entry["samples"] = [(image.name, text, image.captions[0]) for image, text in samples]
        progress.log.append(entry)
        self._save_resume()  # first: who is killed before it can start again, and after it go on
        self._save_models()
        tell_epoch(self.telling, entry, self.training.epochs, improved=improved, complaint=evaluation.complaint)

    def _validate(self) -> tuple[Evaluation, list[str]]:
        """Captions of the validation pictures, by search alone, and their scores.

        A right-to-left decoder is judged by what it is for: the captions that the two directions choose together.
        """
        search = self.plan.options.search
        if self.decoder is self.model.reverse and not search.rerank:
            search = replace(search, rerank=0.5)
        how: dict[str, Any] = {"precision": self.training.precision, "telling": self.telling}
        how["processes"] = self.processes
        return validate(self.model, self.val_images, self.plan.vocabulary, search, features=self.val_features, **how)

    def _save_models(self) -> None:
        """Writes the models and the log of the epoch that ended; the last model last, as a sign that all is there."""
        if not self.processes.leads:
            return
        plan, folder, progress = self.plan, self.plan.folder, self.progress
        origin = {**self.origin, "epoch": progress.epoch, "val": progress.log[-1]["val"]}
        file = ModelFile(self.model, plan.vocabulary, plan.options.search, origin)
        if progress.best_epoch == progress.epoch:
            save_model(folder.best, file)
        lines = "".join(json.dumps(entry) + "\n" for entry in progress.log)
        write_atomically(folder.log, lambda part: part.write_text(lines, encoding="utf-8"))
        header = {**plan.options.to_dict(), "provenance": self.origin}
        write_report(folder, progress.log, header, self.val_images, total=self.training.epochs)
        write_events(folder.events, progress.log[-1])
        save_model(folder.last, file)

    def catch_up(self) -> None:
        """Writes the models of the epoch that ended where the run was killed before it had."""
        if self.progress.epoch and not self.progress.step and not self.plan.folder.has_models_of(self.progress.epoch):
            self._save_models()

    def _save_resume(self) -> None:
        plan, states = self.plan, self.processes.gather([random_states()])
        if not self.processes.leads:
            return
        state = {
            "options": plan.options.to_dict(),
            "vocabulary": list(plan.vocabulary.words),
            "reverse": plan.reverse,
            "data": self.fingerprint,
            "teachers": list(plan.teachers),
            "origin": self.origin,
            "trusts_statistics": self.model.encoder.trusts_statistics,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "random": states[0],
            "others_random": states[1:],
            "scaler": self.scaler.state_dict(),
        }
        save_resume(plan.folder.resume, state)
