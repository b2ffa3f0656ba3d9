"""The timeline as a drawing: a lane for each side, marks at their times, labels that never overlap.

The moments that matter lie within milliseconds of the signal, and what follows may be half a minute of nothing. So what
came before the signal has a scale of its own, and one gap that takes most of the time after it is drawn shorter. Labels
are below their mark: the rightmost at the top, each that would touch another one below it, so no line crosses a label.
``layout`` decides where everything is, ``draw`` only writes it down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lastcall_drill.record import Record
from lastcall_drill.reports import facts, text
from lastcall_drill.reports.facts import Stretch
from lastcall_drill.reports.markup import Markup, join, tag
from lastcall_drill.verdicts import Moment, Result, Source

# All in units of the drawing, which are CSS pixels where it has the space.
WIDE, NARROW = 720, 340
_GUTTER = 62  # the lanes' names
_TOP = 24  # the axis' figures
_LANE_PAD = 15  # above a lane's line
_STEP = 14  # from one label to the one below
_CHARACTER = 6.3  # the widest usual sans-serif at 10.5 px
_TICK_GAP = 58
_MOST_LABELS_BEFORE, _MOST_LABELS = 6, 10  # of one lane; with more, each kind of moment is labelled once
_QUIET_SHARE = 0.5  # a gap longer than this share of the time …
_QUIET_SECONDS = 1.0  # … and than this is drawn shorter
_QUIET_WIDTH = 0.35  # share of the width after the signal
_BEFORE_WIDTH = 0.3  # what came before the signal has a scale of its own, and this share of the width
_SHORTEST = 0.001  # seconds

# Shape and tone of each kind of moment; both are drawn in page.css's colours. An unknown kind is a dot.
SHAPES = {
    "signal": ("triangle", "signal"),
    "notice": ("diamond", "told"),
    "disconnect": ("ring", "told"),
    "cancel": ("cross", "hard"),
    "killed": ("cross", "hard"),
    "ended": ("tick", "faint"),
    "rst": ("cross", "hard"),
    "refused": ("cross", "hard"),
    "bytes": ("tick", "plain"),
    "response": ("tick", "plain"),
    "output": ("tick", "faint"),
    "note": ("tick", "faint"),
    "fin": ("ring", "plain"),
    "close-frame": ("diamond", "plain"),
    "start": ("bar", "plain"),
    "exit": ("square", "plain"),
    "lifespan-startup": ("square", "plain"),
    "lifespan-shutdown": ("square", "plain"),
    "lifespan-end": ("square", "plain"),
}
_PATHS = {
    "dot": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "ring": "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "tick": "m0-5v10",
    "bar": "m0-7v14",
    "square": "m-3.4-3.4h6.8v6.8h-6.8z",
    "diamond": "m0-4.8l4.8 4.8l-4.8 4.8l-4.8-4.8z",
    "cross": "m-3.6-3.6l7.2 7.2m0-7.2l-7.2 7.2",
    "triangle": "m-4.8-4.2h9.6l-4.8 8.4z",
}


class Segment(Record):
    """A part of the axis, from second ``t0`` at ``x0`` to ``t1`` at ``x1``; a quiet one is drawn shorter than it is."""

    t0: float
    t1: float
    x0: float
    x1: float
    quiet: bool = False


class Label(Record):
    """A label below its mark: it takes ``x`` to ``x + width``, on the step ``level`` below the lane's line."""

    x: float
    width: float
    level: int
    words: str


class Lane(Record):
    """One side's line at ``y``, drawn firm from ``x0`` to ``x1``, with its marks (position, event) and labels."""

    source: Source
    y: float
    x0: float
    x1: float
    marks: Sequence[tuple[float, Moment]]
    labels: Sequence[Label]


class Layout(Record):
    """Where everything of a drawing is. ``ticks`` are positions and texts on the axis, ``signals`` positions."""

    width: float
    height: float
    segments: Sequence[Segment]
    lanes: Sequence[Lane]
    ticks: Sequence[tuple[float, str]]
    signals: Sequence[float]


def position(segments: Sequence[Segment], at: float) -> float:
    """Where second ``at`` is on the axis."""
    segment = next((one for one in segments if at <= one.t1), segments[-1])
    span = segment.t1 - segment.t0
    return segment.x0 if span <= 0 else segment.x0 + (at - segment.t0) / span * (segment.x1 - segment.x0)


def axis(times: Sequence[float], left: float, right: float) -> list[Segment]:
    """The segments of the axis for sorted ``times``.

    One up to the signal and one from it on, or one of the two where the other has nothing. What follows the signal is
    in three segments, the middle one quiet, where a gap takes most of that time.
    """
    first, last = times[0], times[-1]
    if last - first < _SHORTEST:  # a moment on its own: any length will do, it only has to have a scale
        return [Segment(first - _SHORTEST, last + _SHORTEST, left, right)]
    if first >= 0 or last <= 0:
        return _broken(times, left, right) if first >= 0 else [Segment(first, last, left, right)]
    middle = left + _BEFORE_WIDTH * (right - left)
    return [Segment(first, 0.0, left, middle), *_broken([0.0, *(one for one in times if one > 0)], middle, right)]


def _broken(times: Sequence[float], left: float, right: float) -> list[Segment]:
    first, last = times[0], times[-1]
    gap, start, end = max(((b - a, a, b) for a, b in itertools.pairwise(times)), default=(0.0, first, last))
    if gap <= max(_QUIET_SECONDS, _QUIET_SHARE * (last - first)):
        return [Segment(first, last, left, right)]
    width = right - left
    least = 0.08 * width  # for the part before and the part after, which may be a single moment
    rest = width * (1 - _QUIET_WIDTH) - 2 * least
    share = (start - first) / (last - first - gap) if last - first - gap > 0 else 0.5
    cut = left + (least + rest * share if start > first else 0.0)
    resume = min(left + least + rest * share, right) + width * _QUIET_WIDTH
    segments = [Segment(start, end, cut, resume, quiet=True), Segment(end, max(last, end + _SHORTEST), resume, right)]
    return [Segment(first, start, left, cut), *segments] if start > first else segments


def ticks(segments: Sequence[Segment]) -> list[tuple[float, str]]:
    """Round times on the axis, far enough apart to be read."""
    found: list[tuple[float, str]] = []
    taken = -math.inf  # by the words of a quiet segment
    for segment in segments:
        if segment.quiet:
            taken = segment.x1 + 18
            if not found:
                found.append((segment.x0, _tick_words(segment.t0, 1, fine=False)))
            continue
        span = segment.t1 - segment.t0
        step = _round_up(max(span, _SHORTEST) * _TICK_GAP / (segment.x1 - segment.x0))
        for number in range(math.ceil(segment.t0 / step - 1e-9), math.floor(segment.t1 / step + 1e-9) + 1):
            x = position([segment], number * step)
            if x >= taken and (not found or x - found[-1][0] >= _TICK_GAP * 0.75):
                found.append((x, _tick_words(number * step, step, fine=max(-segment.t0, segment.t1) < 1)))
    return found


def _tick_words(at: float, step: float, *, fine: bool) -> str:
    """``0``, ``20 ms`` where all is ``fine``, ``1.5 s``, with the digits that the step needs."""
    if abs(at) < step / 2:
        return "0"
    unit, factor = ("ms", 1000) if fine and step < 0.1 else ("s", 1)
    digits = max(0, -math.floor(math.log10(step * factor) + 1e-9))
    return f"{at * factor:.{digits}f} {unit}"


def _round_up(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def words(stretch: Stretch, result: Result) -> str:
    """The label of a stretch: its kind, how many, and of signals and exits which."""
    one = stretch.first
    said = one.what
    if one.what == "signal" and one.detail.startswith("SIG"):
        said = one.detail.split()[0]
    elif one.what == "exit" and result.exit_code is not None and len(stretch.moments) == 1:
        said = f"exit {result.exit_code}"
    count = f" \N{MULTIPLICATION SIGN}{len(stretch.moments)}" if len(stretch.moments) > 1 else ""
    return text.shorten(text.one_line(said), 20) + count


def _labelled(moments: Sequence[Moment]) -> list[Stretch]:
    """What of a lane gets a label, for its moments in order: each stretch, whoever it is of.

    What came before the signal is apart from what came after it. Where one of them has too many stretches, each kind of
    moment gets one label there.
    """
    nameless = [Moment(one.at, one.source, one.what, "", one.detail) for one in moments]
    before = [one for one in nameless if one.at < 0]
    return _folded(before, _MOST_LABELS_BEFORE) + _folded(nameless[len(before) :], _MOST_LABELS)


def _folded(moments: Sequence[Moment], most: int) -> list[Stretch]:
    found = facts.stretches(moments)
    if len(found) <= most:
        return found
    kinds: dict[str, list[Moment]] = {}
    for one in moments:
        kinds.setdefault(one.what, []).append(one)
    return [Stretch(tuple(one)) for one in kinds.values()]


def place_labels(labels: Sequence[tuple[float, str]]) -> list[Label]:
    """Place labels (position, text) so that none overlaps another, from left to right."""
    found: list[Label] = []
    for x, said in sorted(labels, key=lambda one: -one[0]):
        width = len(said) * _CHARACTER + 8
        level = 1 + max((one.level for one in found if one.x < x + width), default=-1)
        found.append(Label(x, width, level, said))
    return found[::-1]


def layout(result: Result, width: float = WIDE) -> Layout:
    """Where everything goes in a drawing of ``width`` units."""
    moments = facts.in_order(result.moments)
    times = [one.at for one in moments] or [0.0]
    right = float(width - 10)
    segments = axis(times, _GUTTER + 8, right)
    for _ in range(2):  # space for the labels at the right end; it moves them a little, hence twice
        over = max(
            (
                position(segments, one.first.at) + len(words(one, result)) * _CHARACTER + 8 - width
                for source in Source
                for one in _labelled([each for each in moments if each.source is source])
            ),
            default=0.0,
        )
        if over > 0:
            right = max(right - over, width / 2)
            segments = axis(times, _GUTTER + 8, right)
    lanes = []
    y = float(_TOP)
    for source in Source:
        own = [one for one in moments if one.source is source]
        hung = place_labels([(position(segments, one.first.at), words(one, result)) for one in _labelled(own)])
        marks = [(position(segments, one.at), one) for one in own]
        ends = (marks[0][0], marks[-1][0]) if marks else (0.0, 0.0)
        lanes.append(Lane(source, y + _LANE_PAD, *ends, tuple(_seen(marks)), tuple(hung)))
        y += _LANE_PAD + 8 + _STEP * (1 + max((one.level for one in hung), default=-1)) + 6
    signals = tuple(position(segments, one.at) for one in moments if one.what == "signal")
    return Layout(width, y, tuple(segments), tuple(lanes), tuple(ticks(segments)), signals)


def _seen(marks: Sequence[tuple[float, Moment]]) -> list[tuple[float, Moment]]:
    """The marks without those that would cover one of their own kind."""
    found: dict[tuple[int, str], tuple[float, Moment]] = {}
    for x, one in marks:
        found.setdefault((round(x), one.what), (x, one))
    return list(found.values())


def draw(result: Result, width: float = WIDE, *, class_: str = "") -> Markup:
    """The drawing as an SVG element. The table of moments beside it says the same in text, hence the short label."""
    plan = layout(result, width)
    bottom = plan.height
    parts: list[Markup] = []
    if plan.segments[0].t1 == 0:
        parts.append(
            _rect(
                "before",
                plan.segments[0].x0 - 6,
                _TOP - 4,
                plan.segments[0].x1 - plan.segments[0].x0 + 6,
                bottom - _TOP,
            )
        )
    for segment in plan.segments:
        if segment.quiet:
            middle = (segment.x0 + segment.x1) / 2
            parts.append(_rect("quiet", segment.x0, _TOP - 4, segment.x1 - segment.x0, bottom - _TOP))
            said = text.duration(segment.t1 - segment.t0)
            more = f"{said}, nothing"
            fits = segment.x1 - segment.x0 > len(more) * _CHARACTER + 50
            parts.append(_text("quiet-words", middle, 12, more if fits else said, text_anchor="middle"))
    for x, said in plan.ticks:
        parts.append(_line("grid", x, _TOP - 4, x, bottom - 4))
        parts.append(_text("tick-words", x, 12, said, text_anchor="middle"))
    parts.extend(_line("signal-line", x, _TOP - 6, x, bottom - 4) for x in plan.signals)
    for lane in plan.lanes:
        parts.extend(_lane(lane, plan))
    shape = f"{plan.width:g} {bottom:g}"
    return tag(
        "svg",
        *parts,
        class_=f"timeline {class_}".strip(),
        viewBox=f"0 0 {shape}",
        width=f"{plan.width:g}",
        height=f"{bottom:g}",
        role="img",
        aria_label=f"Timeline of {text.counted(len(result.moments), 'moment')}; the table below lists them",
    )


def _lane(lane: Lane, plan: Layout) -> list[Markup]:
    parts = [
        _text("lane-words", 0, lane.y + 4, lane.source.value),
        _line("lane", _GUTTER, lane.y, plan.width - 4, lane.y),
    ]
    if lane.x1 > lane.x0:
        parts.append(_line("alive", lane.x0, lane.y, lane.x1, lane.y))
    for label in lane.labels:
        foot = lane.y + 8 + _STEP * (label.level + 1)
        parts.append(_line("pole", label.x, lane.y, label.x, foot))
        parts.append(_text("flag", label.x + 3.5, foot, label.words))
    parts.extend(_mark(x, lane.y, one) for x, one in lane.marks)
    return parts


def _mark(x: float, y: float, moment: Moment) -> Markup:
    shape, tone = SHAPES.get(moment.what, ("dot", "plain"))
    said = " ".join(filter(None, (text.seconds(moment.at), moment.what, moment.who, moment.detail)))
    path = tag("path", tag("title", text.shorten(text.one_line(said), 160)), d=f"M{x:.1f} {y:.1f}{_PATHS[shape]}")
    return tag("g", path, class_=f"mark {shape} {tone}")


def _line(class_: str, *ends: float) -> Markup:
    x1, y1, x2, y2 = (f"{one:.1f}" for one in ends)
    return tag("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)


def _rect(class_: str, *box: float) -> Markup:
    x, y, width, height = (f"{one:.1f}" for one in box)
    return tag("rect", class_=class_, x=x, y=y, width=width, height=height)


def _text(class_: str, x: float, y: float, said: str, **attributes: str) -> Markup:
    return tag("text", join(said), class_=class_, x=f"{x:.1f}", y=f"{y:.1f}", **attributes)
