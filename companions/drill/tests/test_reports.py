"""What the reports share: text made fit to be shown, facts of a run, the JSON of a run, the drawing of a timeline."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companions.drill.tests import samples
from lastcall_drill.record import replace
from lastcall_drill.reports import drawing, facts, text
from lastcall_drill.reports.markup import Markup, tag
from lastcall_drill.verdicts import (
    FORMAT,
    Moment,
    Result,
    Run,
    ScenarioInfo,
    ServerInfo,
    Source,
    Verdict,
    from_json,
    to_json,
)

KINDS = st.sampled_from([*drawing.SHAPES, "connect", "request", "task-end", "something new"])
TIMES = st.floats(-100, 1000, allow_nan=False).map(lambda at: round(at, 4)) | st.floats(-0.01, 0.05)
MOMENTS = st.builds(Moment, TIMES, st.sampled_from(Source), KINDS, st.text(max_size=5), st.text(max_size=20))
WORDS = st.text(max_size=12)
RESULTS = st.builds(
    Result,
    WORDS,
    WORDS,
    st.sampled_from(Verdict),
    WORDS,
    st.lists(MOMENTS, max_size=4).map(tuple),
    st.integers(1, 2),
    st.floats(0, 100),
    st.none() | st.integers(-15, 255),
    st.none() | st.sampled_from(Verdict),
    WORDS,
)
SCENARIOS = st.builds(
    ScenarioInfo, WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, st.lists(WORDS, max_size=2).map(tuple)
)
SERVERS = st.builds(ServerInfo, WORDS, WORDS, WORDS, WORDS, WORDS)
RUNS = st.builds(
    Run,
    WORDS,
    WORDS,
    st.floats(0.1, 10),
    st.lists(SERVERS, max_size=3).map(tuple),
    st.lists(SCENARIOS, max_size=3).map(tuple),
    st.lists(RESULTS, max_size=3).map(tuple),
)


class TestText:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \x1b]8;;http://a\x1b\\link", "red and link"),
            ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
            ("nul \x00 bell \x07 c1 \x9b", "nul \ufffd bell \ufffd c1 \ufffd"),
            ("lone \ud800 not a character \uffff", "lone \ufffd not a character \ufffd"),
            ("abc\u202edcba", "abc\ufffddcba"),
            ("čeština, 日本語 🚀", "čeština, 日本語 🚀"),
        ],
    )
    def test_clean(self, given: str, expected: str) -> None:
        assert text.clean(given) == expected

    @given(st.text(alphabet=st.characters()))
    def test_clean_text_is_printable_and_stays_as_it_is(self, words: str) -> None:
        cleaned = text.clean(words)
        assert text.clean(cleaned) == cleaned
        assert all(character in "\n\t" or ord(character) >= 32 for character in cleaned)
        cleaned.encode()

    def test_an_excerpt_is_the_end_and_says_what_is_missing(self) -> None:
        assert text.excerpt("a\nb\n") == "a\nb"
        shown = text.excerpt("".join(f"line {number}\n" for number in range(500)), lines=3)
        assert shown.splitlines() == [
            "[… 4363 characters before this are left out]",
            "line 497",
            "line 498",
            "line 499",
        ]
        assert text.excerpt("x" * 100, characters=10).endswith("\n" + "x" * 10)

    @pytest.mark.parametrize(
        ("length", "expected"), [(0.0341, "0.034 s"), (3.214, "3.21 s"), (31.04, "31.0 s"), (125.4, "125 s")]
    )
    def test_durations_have_three_figures(self, length: float, expected: str) -> None:
        assert text.duration(length) == expected

    @pytest.mark.parametrize(("at", "expected"), [(0.0, "+0.000 s"), (-0.0, "+0.000 s"), (-1.25, "-1.250 s")])
    def test_moments_have_a_sign(self, at: float, expected: str) -> None:
        assert text.seconds(at) == expected

    @pytest.mark.parametrize(("width", "expected"), [(6, "abcdef"), (5, "abcd…"), (1, "a"), (0, ""), (-1, "")], ids=str)
    def test_shorten(self, width: int, expected: str) -> None:
        assert text.shorten("abcdef", width) == expected


class TestFacts:
    RUN = samples.run()

    def test_groups_are_in_the_order_of_the_run(self) -> None:
        assert [(name, len(found)) for name, found in facts.groups(self.RUN)] == [
            ("Streams", 3),
            ("Plain requests", 3),
            ("Lifespan", 2),
            ("WebSockets", 1),
            ("Workers", 1),
        ]

    def test_counts(self) -> None:
        found = facts.cells(self.RUN)
        tallied = [facts.counts(facts.tally_of(self.RUN, server, found)) for server in self.RUN.servers]
        assert tallied[0] == "8 pass, 2 unsupported"
        assert tallied[4] == "4 pass, 3 fail, 2 unsupported, 1 error"
        assert facts.counts({}) == "nothing run"

    def test_a_row_has_a_place_for_what_was_not_run(self) -> None:
        scenario = self.RUN.scenarios[0]
        results = self.RUN.results[1:]
        row = facts.row(self.RUN, scenario, facts.cells(replace(self.RUN, results=results)))
        assert [one is None for one in row] == [True, False, False, False, False]

    def test_differences(self) -> None:
        found = facts.cells(self.RUN)
        same = [one.id for one in self.RUN.scenarios if not facts.differs(facts.row(self.RUN, one, found))]
        assert same == ["finite-stream-finishes", "idle-exit"]

    def test_the_end_of_the_process(self) -> None:
        result = Result("s", "a", Verdict.PASS, "")
        assert facts.end_of(result) is None
        early = Moment(-0.1, Source.PROCESS, "exit")
        worker = Moment(0.2, Source.PROCESS, "exit", "worker")
        parent = Moment(0.3, Source.PROCESS, "exit", "parent")
        killed = Moment(9.0, Source.PROCESS, "killed")
        assert facts.end_of(replace(result, moments=(early,))) is None
        assert facts.end_of(replace(result, moments=(parent, worker))) == facts.End(0.3, killed=False)
        assert facts.end_of(replace(result, moments=(worker, killed))) == facts.End(9.0, killed=True)

    @given(st.lists(MOMENTS))
    def test_stretches_keep_every_moment_in_order(self, moments: list[Moment]) -> None:
        found = facts.stretches(moments)
        assert [one for stretch in found for one in stretch.moments] == facts.in_order(moments)
        for stretch in found:
            assert len({(one.source, one.what, one.who) for one in stretch.moments}) == 1


class TestJSON:
    @given(RUNS)
    def test_round_trip(self, run: Run) -> None:
        assert from_json(json.loads(json.dumps(to_json(run)))) == run

    def test_the_sample_survives_it(self) -> None:
        run = samples.run()
        read = from_json(json.loads(json.dumps(to_json(run))))
        assert to_json(read) == to_json(run)
        assert read.result("hypercorn", "request-in-flight") == replace(
            next(one for one in run.results if (one.server, one.scenario) == ("hypercorn", "request-in-flight"))
        )
        assert read.result("hypercorn", "nothing") is None

    def test_another_format_is_refused(self) -> None:
        data = to_json(samples.run())
        assert data["format"] == FORMAT
        with pytest.raises(ValueError, match="2"):
            from_json({**data, "format": 2})
        with pytest.raises(ValueError, match="None"):
            from_json({})
        with pytest.raises(KeyError):
            from_json({"format": FORMAT, "date": ""})


class TestMarkup:
    def test_text_is_escaped_and_markup_is_not(self) -> None:
        inner = tag("b", "<i>&\"'")
        assert inner == "<b>&lt;i&gt;&amp;&quot;&#x27;</b>"
        assert tag("p", inner, " > ") == f"<p>{inner} &gt; </p>"
        assert isinstance(tag("p"), Markup)

    def test_attributes(self) -> None:
        made = tag("input", class_="a", data_x='"<', hidden=True, disabled=False, id=None, tabindex=0)
        assert made == '<input class="a" data-x="&quot;&lt;" hidden tabindex="0">'


class TestDrawing:
    @given(st.lists(MOMENTS, max_size=40), st.sampled_from([drawing.WIDE, drawing.NARROW]))
    def test_no_label_touches_another_or_is_crossed(self, moments: list[Moment], width: int) -> None:
        result = Result("s", "a", Verdict.PASS, "", tuple(moments), exit_code=0)
        plan = drawing.layout(result, width)
        for lane in plan.lanes:
            for one, other in ((a, b) for a in lane.labels for b in lane.labels if a is not b):
                apart = one.x + one.width <= other.x or other.x + other.width <= one.x
                assert one.level != other.level or apart
                # The pole of `other` goes down to its own step, past the steps above.
                crossed = one.x < other.x < one.x + one.width and other.level > one.level
                assert not crossed

    @given(st.lists(MOMENTS, min_size=1, max_size=40), st.sampled_from([drawing.WIDE, drawing.NARROW]))
    def test_marks_are_in_order_and_within(self, moments: list[Moment], width: int) -> None:
        plan = drawing.layout(Result("s", "a", Verdict.PASS, "", tuple(moments)), width)
        ordered = facts.in_order(moments)
        places = [drawing.position(plan.segments, one.at) for one in ordered]
        assert all(a <= b + 1e-6 for a, b in pairwise(places))
        assert all(60 <= x <= width for x in places)
        assert all(b - a > 30 for (a, _), (b, _) in pairwise(plan.ticks))
        drawn = {one for lane in plan.lanes for _, one in lane.marks}
        assert {(one.source, one.what) for one in drawn} == {(one.source, one.what) for one in moments}

    def test_a_long_gap_is_drawn_shorter(self) -> None:
        times = [-1.0, 0.0, 0.01, 29.0, 29.1]
        segments = drawing.axis(times, 0, 100)
        assert [(one.t0, one.t1, one.quiet) for one in segments] == [
            (-1.0, 0.0, False),
            (0.0, 0.01, False),
            (0.01, 29.0, True),
            (29.0, 29.1, False),
        ]
        assert [(a.x1, a.t1) for a in segments[:-1]] == [(b.x0, b.t0) for b in segments[1:]]
        assert 20 < segments[2].x1 - segments[2].x0 < 40

    @pytest.mark.parametrize("times", [[0.0], [3.0], [-2.0, -1.0], [0.0, 0.0], [-1.0, 0.0], [0.0, 5.0]], ids=str)
    def test_every_axis_has_a_scale(self, times: list[float]) -> None:
        segments = drawing.axis(times, 0, 100)
        assert all(one.t1 > one.t0 and one.x1 > one.x0 for one in segments)
        assert drawing.ticks(segments)
        assert all(0 <= drawing.position(segments, at) <= 100 for at in times)

    def test_the_words_of_a_hang(self) -> None:
        result = samples.run().result("uvicorn==0.21.1", "endless-stream-ends")
        assert result is not None
        plan = drawing.layout(result)
        words = {lane.source: [label.words for label in lane.labels] for lane in plan.lanes}
        assert words == {
            Source.DRILL: ["SIGTERM"],
            Source.CLIENT: ["connect", "request", "bytes ×3", "bytes ×59", "rst"],  # noqa: RUF001
            Source.APP: ["lifespan-startup", "request"],
            Source.PROCESS: ["start", "ready", "output", "killed"],
        }
        assert [said for _, said in plan.ticks][2:] == ["0", "2 s", "4 s", "6 s", "8 s", "10 s", "12 s"]
        assert plan.signals == (drawing.position(plan.segments, 0.0),)

    def test_many_kinds_of_moments_are_labelled_once_each(self) -> None:
        moments = [Moment(n / 100, Source.APP, "bytes" if n % 2 else "notice") for n in range(200)]
        plan = drawing.layout(Result("s", "a", Verdict.PASS, "", moments))
        (lane,) = [one for one in plan.lanes if one.labels]
        assert [label.words for label in lane.labels] == ["notice ×100", "bytes ×100"]  # noqa: RUF001
