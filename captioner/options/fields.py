"""How an option is declared, checked, offered on a command line, and written to a file. It knows no single option."""

import argparse
import dataclasses
import functools
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from captioner.errors import OptionError

Options = TypeVar("Options")


def option(
    default: Any,
    help: str,  # noqa: A002 - argparse's own word
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    flag: str | None = None,
    metavar: str = "NAME",
    hidden: bool = False,
) -> Any:
    """A dataclass field with its rule and its help text.

    `flag` names the command-line flag where it differs from the field's name, `metavar` its text in the help;
    `hidden` keeps the field off the command line (model files still carry it).
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "choices": choices,
            "minimum": minimum,
            "maximum": maximum,
            "flag": flag,
            "metavar": metavar,
            "hidden": hidden,
        },
    )


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Checked:
    """Checks every field against its type and the rule it was declared with."""

    def __post_init__(self) -> None:
        hints = _hints(type(self))  # type: ignore[arg-type]  # a class is hashable
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, rule, hint = getattr(self, field.name), field.metadata, hints[field.name]
            kind = _plain_type(hint)
            if value is None and kind is not hint:
                continue
            if kind in _KINDS and not is_a(value, kind):
                raise wrong(type(self), field.name, f"is {value!r}", f"it must be {_KINDS[kind]}")
            if rule["choices"] and value not in rule["choices"]:
                raise wrong(type(self), field.name, f"is {value!r}", f"choose one of {', '.join(rule['choices'])}")
            if rule["minimum"] is not None and not value >= rule["minimum"]:
                raise wrong(type(self), field.name, f"is {value}", f"it must be at least {rule['minimum']}")
            if rule["maximum"] is not None and not value <= rule["maximum"]:
                raise wrong(type(self), field.name, f"is {value}", f"it must be at most {rule['maximum']}")


def is_a(value: object, kind: type) -> bool:
    """The value is of that kind; a whole number is a number, but neither is a truth value."""
    return isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def wrong(cls: type, name: str, reason: str, remedy: str) -> OptionError:
    """The error that says what is wrong with a field of `cls`, and what would be right."""
    return OptionError(name, reason, remedy, field=name, flag=flag(cls, name))


def flag(cls: type, name: str) -> str:
    """The command-line flag of a field, for messages."""
    return _flag(next(field for field in dataclasses.fields(cls) if field.name == name))


def _flag(field: "dataclasses.Field[Any]") -> str:
    return "--" + (field.metadata["flag"] or field.name.replace("_", "-"))


def _plain_type(hint: Any) -> Any:
    """`str` for `str | None`; the hint itself otherwise."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def add_arguments(parser: argparse.ArgumentParser, cls: type, *, defaults: bool = True) -> None:
    """Adds a flag for every field of an options dataclass.

    A flag that is not given leaves no trace in the namespace, so that `given` tells what the user chose. `defaults`
    shows the defaults in the help; where a model file decides them, they would mislead.
    """
    hints = _hints(cls)
    group = parser.add_argument_group((cls.__doc__ or cls.__name__).split("\n")[0].rstrip("."))
    for field in dataclasses.fields(cls):
        rule = field.metadata
        if rule["hidden"]:
            continue
        kind = _plain_type(hints[field.name])
        shown = f" (default: {field.default})" if defaults and field.default is not None else ""
        arguments: dict[str, Any] = {
            "dest": _destination(cls, field.name),
            "default": argparse.SUPPRESS,
            "help": (rule["help"] + shown).replace("%", "%%"),
        }
        if kind is bool:
            group.add_argument(_flag(field), action=argparse.BooleanOptionalAction, **arguments)
        else:
            metavar = (
                "|".join(rule["choices"]) if rule["choices"] else {int: "N", float: "X"}.get(kind, rule["metavar"])
            )
            group.add_argument(_flag(field), type=kind, metavar=metavar, **arguments)


def given(cls: type, namespace: argparse.Namespace) -> dict[str, Any]:
    """The fields of `cls` that were given on the command line, with their values."""
    names = (field.name for field in dataclasses.fields(cls))
    return {n: getattr(namespace, _destination(cls, n)) for n in names if hasattr(namespace, _destination(cls, n))}


def _destination(cls: type, name: str) -> str:
    return f"{cls.__name__}.{name}"


def to_dict(options: Any) -> dict[str, Any]:
    """An options dataclass as plain values for JSON."""
    return dataclasses.asdict(options)


def from_dict(cls: type[Options], values: Mapping[str, Any]) -> Options:
    """The options that `to_dict` wrote; raises OptionError where a field is unknown or has a value it cannot have."""
    _check_names(cls, values, "the file may come from a newer version")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def merged(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with some fields changed; raises OptionError as `from_dict` does."""
    fields = ", ".join(field.name for field in dataclasses.fields(options))  # type: ignore[arg-type]
    _check_names(type(options), values, f"it has {fields}")
    return dataclasses.replace(options, **values)  # type: ignore[type-var]


def check_groups(names: Iterable[str], known: Collection[str]) -> None:
    """Raises OptionError where options are given in a group that there is not."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise OptionError(f"There are no options {', '.join(unknown)}: there are {', '.join(known)}.")


def _check_names(cls: type, values: Mapping[str, Any], hint: str) -> None:
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise OptionError(f"{cls.__name__} has no field {', '.join(unknown)}: {hint}.")
