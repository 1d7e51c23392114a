"""Cards: what a plug-in says of itself, in literals that are read without importing it.

A plug-in's module holds ``CARD = MergerCard(title=..., ...)``. Configuration, rules, pages and tables
read the card, and nobody keeps a second list. Its words are in no digest of code: what a number depends
on (options, statistics, seeds) enters the keys by value.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

from taskgrid.errors import ConfigError
from taskgrid.plugins.options import Option, Options, Rule, read_options
from taskgrid.plugins.registry import NOUNS, Kind, module_of, source_of
from taskgrid.plugins.storage import MODEL, Storage

Scope: TypeAlias = Literal["element", "tensor", "model"]
Sees: TypeAlias = Literal["nothing", "images", "labels"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What every plug-in says.

    Attributes:
        title: a few words, for a list.
        paper: authors, title, venue, and the equation or section.
        options: its options, by name.
        rules: what they must keep together.
    """

    title: str
    paper: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MergerCard(Card):
    """A merge method.

    Attributes:
        needs: statistics that *prepare* reads.
        gives: one ``model``; a model ``per_task``; one model and, for each task, what becomes of its
            ``features``; or ``logits``, made of those of the experts.
        coefficient: what a point's number is: the ``scale`` lambda; a ``threshold`` of the method's own,
            at which zero is a point like any other; ``none`` where there is a single point, ``1.00``.
        learned: whether *prepare* reads coefficients or tensors that a rule of their own has learned. An
            option ``images`` says whose images are looked at; without one it is those of validation.
        learned_if: values of options with any of which it learns, where it learns nothing otherwise.
        instead: statistics that a merge by hand may be given in the place of what is learned.
        labels: whether labels are looked at, too; of test images nobody's labels are.
        stochastic: whether it draws, from a seed that derives from the experts'.
        scope: what it must see at once when tensors pass by one after the other: the same ``element`` of
            all, a ``tensor``, or the whole ``model``. A merger with a method ``scope(options)`` may say
            less for some options.
        tasks: how many tasks a subset must have; None takes any number.
        storage: what it keeps beside theta_0, where that is more than one model in its place.
        factors: whether it merges factors, and so experts of modes that keep them and no others.
    """

    needs: tuple[str, ...] = ()
    gives: Literal["model", "per_task", "features", "logits"] = "model"
    coefficient: Literal["scale", "threshold", "none"] = "scale"
    learned: bool = False
    learned_if: Mapping[str, Any] = field(default_factory=dict)
    instead: tuple[str, ...] = ()
    labels: bool = False
    stochastic: bool = False
    scope: Scope = "model"
    tasks: int | None = None
    storage: Storage = MODEL
    factors: bool = False

    def __post_init__(self) -> None:
        """Refuse a card that learns from labels of test images, or leaves open what is kept."""
        if (self.gives == "model") != (self.storage == MODEL):
            raise ValueError(
                "what gives more than one model says what it keeps, `storage=Storage(...)`, and only that"
            )
        if self.labels and not (self.learned or self.learned_if):
            raise ValueError("a method sees labels only where it says `learned`")
        images = self.options.get("images")
        seen = ("val",) if images is None else images.choices or ("any",)
        if self.labels and not {*seen} <= {"val", "train"}:
            raise ValueError(
                "what learns from labels may see `images` of val or train, never of test"
            )

    def sees(self, options: Mapping[str, Any]) -> Sees:
        """Return what a merge sees of data with these options, all of them.

        The validation images by which its point is chosen are not meant.
        """
        if self.learns(options):
            return "labels" if self.labels else "images"
        return "images" if self.needs else "nothing"

    @property
    def per_task(self) -> bool:
        """Whether what it is for a task's images is that task's own: others are not measured."""
        return self.gives in ("per_task", "features")

    def learns(self, options: Mapping[str, Any]) -> bool:
        """Return whether it learns with these options, all of them."""
        return self.learned or any(options[name] == one for name, one in self.learned_if.items())


@dataclass(frozen=True, kw_only=True)
class StatisticCard(Card):
    """A statistic of data: something that merge methods or modes need beside weights.

    Its options say what it is computed on: ``images``, how many of each task (0 takes all), ``split``,
    where they come from, and of one per base ``of``, whose they are: those of the ``control`` tasks, of
    the ``trained`` ones, or of ``all``.

    Attributes:
        per: whether there is one for each ``task``, of its expert, or one for a ``base``: the sum of what
            is computed at theta_0 on each of several tasks.
        head: whether it sees the task's head.
    """

    per: Literal["task", "base"] = "task"
    head: bool = True

    def __post_init__(self) -> None:
        """Refuse a card that leaves open which images are looked at."""
        for name in ("images", "split", *(("of",) if self.per == "base" else ())):
            if name not in self.options:
                raise ValueError(f"a statistic needs the option {name!r}; `fisher` shows how")


@dataclass(frozen=True, kw_only=True)
class ModeCard(Card):
    """A fine-tuning mode.

    Attributes:
        tangent: whether its experts are tangent models, and are evaluated as such.
        recipe: keys of the training recipe that differ in this mode.
        others: what it reads of the other tasks: ``images``, or the names of statistics.
        factors: whether it keeps factors beside the expert.
    """

    tangent: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    factors: bool = False


ColumnKind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        kind: the type of its values.
        about: what it is, in words for ``docs/tables.md`` and the file itself.
    """

    kind: ColumnKind
    about: str


@dataclass(frozen=True, kw_only=True)
class TableCard:
    """A study's own table.

    Attributes:
        row: what a row is.
        columns: its columns in order; None where ``store.columns`` says what it is. A name that is there
            has that type here too, and may have other words.
    """

    row: str
    columns: Mapping[str, Column | None]


@dataclass(frozen=True, kw_only=True)
class StudyCard(Card):
    """A study.

    Attributes:
        rule: how it chooses, in words for the table of chosen points; empty where it chooses nothing.
        tables: its own tables, by name.
        figures: names of the figures drawn from them.
        measured: the folder of ``results`` in which a rule of the study's own leaves what it sees of each
            run, a file for each table; empty where a study reads the grid alone. Its option ``modes`` says
            of which runs.
    """

    rule: str = ""
    tables: Mapping[str, TableCard] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    measured: str = ""


@dataclass(frozen=True, kw_only=True)
class AlignerCard(Card):
    """An aligner: how experts of one base come to another one.

    Attributes:
        per: whether there is one transport for a pair of ``bases``, or one for each ``task``, of its vector.
        sees: what it looks at beside weights: ``nothing``; ``images``; or their ``labels``, too, with heads.
        sees_if: option -> value -> what it looks at where it has that value.
    """

    per: Literal["bases", "task"] = "bases"
    sees: Sees = "nothing"
    sees_if: Mapping[str, Mapping[Any, Sees]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a card that says what is seen with an option that there is not."""
        if unknown := sorted(self.sees_if.keys() - self.options.keys()):
            raise ValueError(f"`sees_if` names {unknown[0]!r}, which is no option")

    def looks_at(self, options: Mapping[str, Any]) -> Sees:
        """Return what it looks at with these options, all of them."""
        found = (values.get(options[name]) for name, values in self.sees_if.items())
        return next(filter(None, found), self.sees)


@dataclass(frozen=True, kw_only=True)
class FigureCard(Card):
    """A figure.

    Attributes:
        category: the part of the report it belongs to.
        tables: the tables it reads; ``STUDY/TABLE`` is a study's own, and the figure is drawn only where
            that study is configured.
        caption: what is seen, how it was chosen and on which split; reStructuredText, one paragraph.
    """

    category: str
    tables: tuple[str, ...]
    caption: str

    def __post_init__(self) -> None:
        """Join the lines of the caption: it is one paragraph."""
        object.__setattr__(self, "caption", " ".join(self.caption.split()))


_CLASSES: Mapping[str, type] = {
    one.__name__: one
    for one in (
        Option, Rule, Column, TableCard, Storage,
        MergerCard, StatisticCard, ModeCard, StudyCard, AlignerCard, FigureCard,
    )
}  # fmt: skip
_KINDS: Mapping[Kind, type[Card]] = {
    "merger": MergerCard,
    "statistic": StatisticCard,
    "mode": ModeCard,
    "study": StudyCard,
    "aligner": AlignerCard,
    "figure": FigureCard,
}

AnyCard = TypeVar("AnyCard", bound=Card)


def merger_card(name: str) -> MergerCard:
    """Return the card of a merge method; raises as ``read_card``.

    Examples:
        >>> card = merger_card("slerp")
        >>> card.tasks, card.gives, sorted(card.options)
        (2, 'model', ['on', 't'])
    """
    return _typed("merger", name, MergerCard)


def statistic_card(name: str) -> StatisticCard:
    """Return the card of a statistic; raises as ``read_card``."""
    return _typed("statistic", name, StatisticCard)


def mode_card(name: str) -> ModeCard:
    """Return the card of a fine-tuning mode; raises as ``read_card``."""
    return _typed("mode", name, ModeCard)


def study_card(name: str) -> StudyCard:
    """Return the card of a study; raises as ``read_card``."""
    return _typed("study", name, StudyCard)


def aligner_card(name: str) -> AlignerCard:
    """Return the card of an aligner; raises as ``read_card``."""
    return _typed("aligner", name, AlignerCard)


def figure_card(name: str) -> FigureCard:
    """Return the card of a figure; raises as ``read_card``."""
    return _typed("figure", name, FigureCard)


def plugin_options(kind: Kind, name: str, values: Mapping[str, Any]) -> Options:
    """Return a plug-in's options, checked, with the defaults of its card filled in.

    Raises:
        ConfigError: if there is no such plug-in or option, a value does not fit, or values do not fit
            together.
    """
    card = read_card(kind, name)
    found = read_options(f"{NOUNS[kind]} {name!r}", card.options, values, card.rules)
    return _with_inner(name, found) if "inner" in found else found


def shown_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merge method's options as tables show them.

    Args:
        method: the method.
        options: all its options; where it gives more than one model, what it keeps is added.
    """
    card = merger_card(method)
    more = {} if card.gives == "model" else {"storage": card.storage.words()}
    return {**options, **more}


@cache
def read_card(kind: Kind, name: str) -> Card:
    """Return what a plug-in says of itself, without importing it.

    Raises:
        ConfigError: if there is no such plug-in, or its card is missing or is not made of literals.
    """
    module = module_of(kind, name)
    path = source_of(module)
    if path is None:
        raise ConfigError(f"{NOUNS[kind]} {name!r} is registered as {module}, which does not exist")
    return _read(kind, module, path.read_text(encoding="utf-8"))


def merger_modules(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules of a merge method: its own, and that of the method under it."""
    names = [name, options["of"]] if "inner" in options else [name]
    return tuple(module_of("merger", each) for each in names)


def _with_inner(name: str, options: Options) -> Options:
    """Return the options of a merge method over another one, whose own are checked and filled in."""
    under = merger_card(options.of)
    inner = plugin_options("merger", options.of, options.inner)
    if under.gives != "model" or under.needs or under.stochastic or under.learns(inner):
        raise ConfigError(
            f"merge method {name!r} goes over one that makes a single model of experts alone, but "
            f"{options.of!r} draws, learns, needs statistics or gives no single model; name another in `of`"
        )
    return Options({**options, "inner": dict(inner)})


def _typed(kind: Kind, name: str, wanted: type[AnyCard]) -> AnyCard:
    card = read_card(kind, name)
    assert isinstance(card, wanted)
    return card


def _read(kind: Kind, module: str, source: str) -> Card:
    wanted = _KINDS[kind]
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARD":
            try:
                card = _value(node.value)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"CARD in {module} is no {wanted.__name__}: {error}") from None
            if isinstance(card, wanted):
                return card
    raise ConfigError(f"{module} has no CARD = {wanted.__name__}(...); write one in literals")


def _value(node: ast.expr) -> Any:
    """Evaluate literals, containers of literals, and calls of the classes above."""
    if isinstance(node, ast.Call):
        made = _CLASSES.get(ast.unparse(node.func))
        if made is None or node.args:
            raise ValueError(f"line {node.lineno} calls what is no card, or without names")
        return made(**{str(each.arg): _value(each.value) for each in node.keywords})
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key is not None else None for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"line {node.lineno} is no literal") from None
