"""Cards: what a file may say, what is wrong with it otherwise, and that those which come with lastcall are sound."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastcall_drill.cards.card_run import ACTIONS, OBSERVERS
from lastcall_drill.cards.format import OBSERVATIONS, STEPS, Confidence, Role
from lastcall_drill.cards.loader import CATALOGUE, CardError, catalogue, find, load
from lastcall_drill.cards.scaffold import scaffold
from lastcall_drill.cli.cards import cards_group

DOCS = Path(__file__).parents[3] / "docs" / "reference"
CARDS = catalogue()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A card that can be loaded: the one that ``cards new`` writes."""
    return scaffold("my-card", tmp_path, "uvicorn")[0]


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))
    return path


# the format


def test_a_new_card_can_be_loaded(good: Path) -> None:
    card = load(good)
    assert (card.id, card.server, card.file) == ("my-card", "uvicorn", good)
    assert [setup.role for setup in card.setups] == [Role.BROKEN, Role.FIXED]
    assert [step.do for step in card.reproduction.steps] == ["start", "request", "read-until", "signal", "wait-exit"]
    assert card.reproduction.steps[2].fields["within"] == 5.0, "a default"
    assert card.setups[0].app.read_text().startswith('"""The application')
    assert card.fixes[0].changes == ("release",)
    assert card.signatures[0].confidence is Confidence.LOW


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("format = 1", "format = 2", "format"),
        ("format = 1", "", "format"),
        ("format = 1", "format = [", ""),
        ('id = "my-card"', 'id = "My Card"', "id"),
        ('id = "my-card"', 'id = "other"', "id"),
        ('title = "What', 'titel = "What', "title"),
        ('server = "uvicorn"', 'server = ""', "server"),
        ('server = "uvicorn"', "server = 1", "server"),
        ('server = "uvicorn"', 'server = "uvicorn"\nmore = 1', "more"),
        ('sources = ["a link to the issue"]', "sources = []", "sources"),
        ('confidence = "low"', 'confidence = "sure"', "signature[1].confidence"),
        ('text = "the line', 'pattern = "(the line', "signature[1].pattern"),
        ('text = "the line as the server writes it"', 'text = "it"', "signature[1].text"),
        ('changes = ["release"]', 'changes = ["luck"]', "fix[1].changes"),
        ('role = "fixed"', 'role = "mended"', "run[2].role"),
        ('role = "fixed"', 'role = "still-broken"', "run"),
        ('role = "broken"', 'role = "fixed"', "run"),
        ('app = "my_card.py"', 'app = "none.py"', "run[1].app"),
        ('app = "my_card.py"', 'app = "my_card.py"\npython = "new"', "run[1].python"),
        ('"--port", "{port}"', '"--port", "{prot}"', "reproduction.command"),
        ('"--port", "{port}"', '"--port", "8000"', "reproduction.command"),
        ("deadline = 30", "deadline = 0", "reproduction.deadline"),
        ("deadline = 30", "deadline = true", "reproduction.deadline"),
        ('{ do = "start" },', "", "reproduction.step"),
        ('do = "wait-exit"', 'do = "wait"', "reproduction.step[5].do"),
        ("within = 8", 'within = "8"', "reproduction.step[5].within"),
        ("within = 8", "within = -8", "reproduction.step[5].within"),
        ("within = 8", "within = 8, more = 1", "reproduction.step[5].more"),
        ('signal = "SIGTERM"', 'signal = "TERM"', "reproduction.step[4].signal"),
        ('signal = "SIGTERM"', 'signal = "SIGTERM", to = "all"', "reproduction.step[4].to"),
        ('"read-until", client = "client"', '"read-until", client = "klient"', "reproduction.step[3].client"),
        (
            '{ see = "exit.not-within", seconds = 7.9 }',
            '{ see = "client.complete", client = "x" }',
            "reproduction.failure[1].client",
        ),
        ('see = "exit.within"', 'see = "exit.soon"', "reproduction.healthy[1].see"),
        ('pattern = "app: shutdown"', 'pattern = "app["', "reproduction.healthy[2].pattern"),
    ],
)
def test_an_error_names_the_file_and_the_field(good: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(CardError) as caught:
        load(changed(good, old, new))
    assert caught.value.field == field
    assert str(caught.value).startswith("my-card.toml: ")


def test_no_fix_may_be_known(good: Path) -> None:
    text = good.read_text()
    fix = text[text.index("[[fix]]") : text.index("# The runs")]
    fixed = text[text.index('[[run]]\nrole = "fixed"') : text.index("[reproduction]")]
    good.write_text(text.replace(fix, "").replace(fixed, "").replace("sources =", 'fix = "none known"\nsources ='))
    card = load(good)
    assert card.fixes == ()
    with pytest.raises(CardError, match="maybe"):
        load(changed(good, "none known", "maybe"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"none\.toml"):
        find(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"title = '\xe4'")
    with pytest.raises(CardError, match=r"latin\.toml"):
        load(tmp_path / "latin.toml")
    for name in ("uvicorn-0", "../cards/x", ""):
        with pytest.raises(CardError, match="uvicorn-451"):
            find(name)


def test_every_step_and_observation_is_carried_out_and_described() -> None:
    assert set(ACTIONS) == set(STEPS)
    assert set(OBSERVERS) == set(OBSERVATIONS)
    page = (DOCS / "drill-cards.md").read_text()
    for rows in (STEPS, OBSERVATIONS):
        for name, row in rows.items():
            (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
            missing = [field for field in row.fields if f"`{field}`" not in line]
            assert not missing, f"{name}: the page does not tell of {missing}"


# the catalogue


def test_the_catalogue_has_the_first_card_and_many_more() -> None:
    assert find("uvicorn-451") in CARDS
    assert len(CARDS) >= 9
    assert len({card.title for card in CARDS}) == len(CARDS)
    assert {path.stem for path in CATALOGUE.glob("*.toml")} == {card.id for card in CARDS}
    used = {setup.app for card in CARDS for setup in card.setups}
    assert used == set((CATALOGUE / "apps").glob("[a-z]*.py")), "applications that no card uses, or the other way round"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_card_of_the_catalogue_is_sound(card: Any) -> None:
    assert all(source.startswith("https://") for source in card.sources)
    assert not any("==" not in one for setup in card.setups for one in setup.requirements), "releases are named"
    assert not card.lastcall.unsupported
    longest = sum(step.fields.get("within", step.fields.get("seconds", 0)) for step in card.reproduction.steps[2:])
    assert longest < card.reproduction.deadline, "the hard deadline would end it first"
    for setup in card.setups:
        assert compile(setup.app.read_text(), setup.app, "exec", dont_inherit=True)


def test_there_is_evidence_for_every_card_as_it_is_now() -> None:
    """``lastcall drill verify --all`` was run for what the cards say today, and showed it."""
    evidence = {one["id"]: one for one in json.loads((DOCS / "drill-cards-evidence.json").read_text())["cards"]}
    assert set(evidence) == {card.id for card in CARDS}
    for card in CARDS:
        found = evidence[card.id]
        assert found["reproduced"], card.id
        for setup in card.setups:
            runs = [one for one in found["runs"] if one["title"].partition(" (run")[0] == setup.title]
            assert len(runs) >= 2, f"{card.id}: {setup.title} was not tried twice"
            words = " ".join((*card.reproduction.command, *setup.options))
            for run in runs:
                assert (run["role"], run["command"], run["as_claimed"]) == (setup.role.value, words, True)
                versions = {name.lower(): version for name, version in run["versions"].items()}
                for requirement in setup.requirements:
                    name, _, version = requirement.partition("==")
                    assert versions[name] == version
        lastcall = [one["outcome"] for one in found["runs"] if one["role"] == "lastcall"]
        assert set(lastcall) == {"unsupported" if card.lastcall.unsupported else "failure not shown"}


def test_the_evidence_says_nothing_of_the_machine() -> None:
    text = (DOCS / "drill-cards-evidence.json").read_text()
    for place in ("/home/", "/root", "/tmp", "/work", "/usr", ".cache", "site-packages/../"):
        assert place not in text


# the command


def test_the_catalogue_is_listed() -> None:
    done = CliRunner().invoke(cards_group, [])
    assert done.exit_code == 0
    for card in CARDS:
        assert any(line.split(maxsplit=1) == [card.id, card.title] for line in done.output.splitlines())


def test_a_card_is_shown() -> None:
    done = CliRunner().invoke(cards_group, ["show", "uvicorn-451"])
    assert done.exit_code == 0
    for word in (
        "Not when:",
        "still-broken: uvicorn==0.22.0",
        "--timeout-graceful-shutdown",
        "medium confidence",
        "signal signal=SIGTERM to=server",
    ):
        assert word in done.output
    raw = CliRunner().invoke(cards_group, ["show", "uvicorn-451", "--toml"])
    assert tomllib.loads(raw.output)["id"] == "uvicorn-451"
    none = CliRunner().invoke(cards_group, ["show", "granian-open-stream"])
    assert "fix: none known" in none.output


def test_a_card_that_is_not_there_is_a_sentence() -> None:
    done = CliRunner().invoke(cards_group, ["show", "no-such-card"])
    assert done.exit_code == 2
    assert "Error: no-such-card: expected the id of a card (" in done.output


def test_new_writes_both_files_once(tmp_path: Path) -> None:
    arguments = ["new", "granian-9", "--server", "granian", "--directory", str(tmp_path)]
    done = CliRunner().invoke(cards_group, arguments)
    assert done.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["granian-9.toml", "granian_9.py"]
    assert load(tmp_path / "granian-9.toml").server == "granian"
    again = CliRunner().invoke(cards_group, arguments)
    assert again.exit_code == 2
    assert "a new card does not overwrite one" in again.output
    bad = CliRunner().invoke(cards_group, ["new", "Not An Id", "--directory", str(tmp_path)])
    assert bad.exit_code == 2
    assert "expected lower-case letters, digits and single hyphens" in bad.output
    quoted = CliRunner().invoke(cards_group, ["new", "x", "--server", 'a"b', "--directory", str(tmp_path)])
    assert quoted.exit_code == 2
    assert "x.toml: server: expected the name of a distribution such as uvicorn" in quoted.output
