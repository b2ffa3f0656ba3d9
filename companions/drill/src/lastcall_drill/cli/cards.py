"""``lastcall drill cards``, ``verify`` and ``match``: known failures, their proof, and where a log shows them.

Exit codes: 0 done · 1 verify: a card is not proved; match: nothing was found · 2 usage, or a card or file that cannot
be used · 130 interrupted, after every process that was started is gone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lastcall_drill.cards.conditions import Facts
from lastcall_drill.cards.format import NONE_KNOWN, Card, described
from lastcall_drill.cards.loader import catalogue, causes, find
from lastcall_drill.cards.match import Known, Match, Summary, scan, to_json
from lastcall_drill.cards.scaffold import scaffold
from lastcall_drill.cli.end import interruptible
from lastcall_drill.errors import DrillError

if TYPE_CHECKING:
    from lastcall_drill.cards.verify import Evidence, Proof

NOT_PROVED: Final = 1
NOTHING_FOUND: Final = 1
USAGE: Final = 2

_HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_CONTROLS: Final = (*range(9), *range(10, 32), *range(127, 160))
_REORDERING: Final = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))  # and line breaks
_ESCAPED: Final = {one: f"\\x{one:02x}" for one in _CONTROLS} | {one: f"\\u{one:04x}" for one in _REORDERING}


class _CannotBeUsedError(click.ClickException):
    """A card or a file that cannot be used."""

    exit_code = USAGE


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except DrillError as error:
        raise _CannotBeUsedError(str(error)) from None
    except OSError as error:
        raise _CannotBeUsedError(f"{error.filename or 'the file'}: {error.strerror or error}") from None


# cards


@click.group(
    "cards",
    invoke_without_command=True,
    context_settings=_HELP,
    help="The catalogue: known failures of servers at the stop, each with a reproduction and what mends it.",
)
@click.pass_context
def cards_group(ctx: click.Context) -> None:
    """List the catalogue, unless a subcommand was asked for."""
    if ctx.invoked_subcommand is not None:
        return
    with _plain_errors():
        cards = catalogue()
    width = max(len(card.id) for card in cards)
    for card in cards:
        click.echo(f"{card.id:{width}}  {card.title}")
    click.echo("\nMore of one: lastcall drill cards show ID", err=True)


@cards_group.command("show", context_settings=_HELP, help="Show a card: what it is, what mends it, what proves it.")
@click.argument("card", metavar="ID|FILE.toml")
@click.option("--toml", "raw", is_flag=True, help="Print the file itself.")
def show_command(card: str, raw: bool) -> None:
    """Print one card."""
    with _plain_errors():
        found = find(card)
        click.echo(found.file.read_text("utf-8") if raw else _card_text(found), nl=not raw)


@cards_group.command("new", context_settings=_HELP, help="Write a new card, to be filled in: ID.toml and its .py file.")
@click.argument("card", metavar="ID")
@click.option("--server", default="uvicorn", metavar="NAME", help="The server that it is about.  [uvicorn]")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Where to write it.  [.]",
)
def new_command(card: str, server: str, directory: Path) -> None:
    """Scaffold a card."""
    with _plain_errors():
        for path in scaffold(card, directory, server):
            click.echo(path)


def _card_text(card: Card) -> str:
    lines = [card.title, "", card.summary, "", f"affected: {card.affected}", f"fixed:    {card.fixed}", ""]
    if not card.fixes:
        lines += [f"fix: {NONE_KNOWN}", ""]
    for fix in card.fixes:
        lines += [
            f"fix: {fix.title} (changes {', '.join(fix.changes)})",
            f"  {fix.how}",
            f"  Not when: {fix.not_when}",
            "",
        ]
    for signature in card.signatures:
        lines.append(f"in logs ({signature.confidence.value} confidence): {signature.text}")
        lines += [f"  {signature.note}"] if signature.note else []
    lines += [""] if card.signatures else []
    lines.append("runs:")
    for setup in card.setups:
        words = " ".join((*card.reproduction.command, *setup.options))
        python = f" on Python {setup.python}" if setup.python else ""
        lines.append(f"  {setup.role.value}: {', '.join(setup.requirements)}{python}, {setup.app.name}: {words}")
    lines += ["", "steps:", *(f"  {described(one.do, one.fields)}" for one in card.reproduction.steps)]
    lines += ["", "it fails if:", *(f"  {described(one.see, one.fields)}" for one in card.reproduction.failure)]
    lines += ["", "it is well if:", *(f"  {described(one.see, one.fields)}" for one in card.reproduction.healthy)]
    lines += ["", "sources:", *(f"  {source}" for source in card.sources)]
    return "\n".join(lines)


# verify


@click.command(
    "verify",
    context_settings=_HELP,
    help="Prove cards: run the reproduction on the broken release, then on the fixed one, then on lastcall.",
    epilog="Exit code 0 if every broken release shows the failure and every fixed one does not. What lastcall does is "
    "told, and has no part in it. Releases are installed into environments that are kept.",
)
@click.argument("cards", nargs=-1, metavar="[ID|FILE.toml]...")
@click.option("--all", "everything", is_flag=True, help="All cards of the catalogue.")
@click.option("--times", type=click.IntRange(1, 100), default=1, metavar="N", help="Do each run N times.  [1]")
@click.option("--json", "json_file", metavar="FILE", help="Write the evidence as JSON; - is stdout.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write the evidence as Markdown; - is stdout.")
@click.pass_context
def verify_command(
    ctx: click.Context,
    cards: Sequence[str],
    everything: bool,
    times: int,
    json_file: str | None,
    markdown_file: str | None,
) -> None:
    """Verify cards and write the evidence."""
    if bool(cards) is everything:
        raise click.UsageError("expected the ids of cards, or --all", ctx)
    from lastcall_drill.cards.evidence import to_json as evidence_json  # noqa: PLC0415 - not for --help
    from lastcall_drill.cards.evidence import to_markdown  # noqa: PLC0415
    from lastcall_drill.cards.verify import verify  # noqa: PLC0415

    with _plain_errors():
        chosen = catalogue() if everything else [find(name) for name in cards]
    proofs: list[Proof] = []
    quiet = "-" in (json_file, markdown_file)
    with interruptible(ctx, "verify"), _plain_errors():
        for card in chosen:
            proof = verify(card, times=times, say=partial(_progress, card.id))
            proofs.append(proof)
            _echo(_proof_text(proof), quiet)
    with _plain_errors():
        if json_file is not None:
            _write(json_file, json.dumps(evidence_json(proofs), indent=1) + "\n")
        if markdown_file is not None:
            _write(markdown_file, to_markdown(proofs))
    ctx.exit(0 if all(proof.reproduced for proof in proofs) else NOT_PROVED)


def _progress(card: str, line: str) -> None:
    click.echo(f"{card}: {line}", err=True)


def _echo(text: str, to_stderr: bool) -> None:
    click.echo(text, err=to_stderr)


def _write(file: str, text: str) -> None:
    if file == "-":
        click.echo(text, nl=False)
    else:
        Path(file).write_text(text, "utf-8")


def _proof_text(proof: Proof) -> str:
    lines = [f"{proof.card.id}: {proof.card.title}"]
    for run in proof.runs:
        lines.append(f"  {run.role.value}: {run.title}: {run.sentence.partition(chr(10))[0] or _run_text(run)}")
        if not run.proves:
            lines += [f"    {one.list}: {one.see}: {'yes' if one.holds else 'no'}, {one.what}" for one in run.checks]
    return "\n".join((*lines, f"  {proof.sentence}"))


def _run_text(run: Evidence) -> str:
    end = f"{run.exit} after {run.seconds:.1f} s" if run.seconds is not None else "still running in the end"
    return f"{run.outcome.value} ({end})"


# match


@click.command(
    "match",
    context_settings=_HELP,
    help="Find known failures in a log: FILE, or - for stdin. Logs of any size are read, in a stream.",
    epilog="Exit code 0 if something was found, 1 if nothing was, as grep has it.",
)
@click.argument("file", metavar="FILE|-")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option(
    "--version",
    "versions",
    multiple=True,
    metavar="NAME==VERSION",
    help="A release that wrote the log, also python==3.13. May be given several times.",
)
@click.option(
    "--exit",
    "exit_",
    default="",
    metavar="CODE|SIGNAL|none",
    help="How the process ended: its exit code, a signal such as SIGTERM, or none if it had to be killed.",
)
@click.pass_context
def match_command(ctx: click.Context, file: str, as_json: bool, versions: Sequence[str], exit_: str) -> None:
    """Scan a log."""
    if exit_ and not re.fullmatch(r"\d+|SIG[A-Z]+|none", exit_):
        raise click.UsageError(f"--exit {exit_}: expected an exit code, a signal such as SIGTERM, or none", ctx)
    given = [text.partition("==") for text in versions]
    for text, (name, equals, release) in zip(versions, given, strict=True):
        if not (name and equals and release):
            raise click.UsageError(f"--version {text}: expected NAME==VERSION, such as uvicorn==0.54.0", ctx)
    with _plain_errors():
        cards: list[Known] = [*catalogue(), *causes()]
        tell = None if as_json else _tell
        facts = Facts({name: release for name, _, release in given}, exit_)
        if file == "-":
            summary = scan(sys.stdin.buffer, cards, tell=tell, facts=facts)
        else:
            with Path(file).open("rb") as log:
                summary = scan(log, cards, tell=tell, facts=facts)
    if as_json:
        click.echo(json.dumps(to_json(summary), indent=1))
    else:
        click.echo(_summary_text(summary))
    ctx.exit(0 if summary.found else NOTHING_FOUND)


def _tell(match: Match) -> None:
    # Parts of a log come from clients: nothing of it may reach the terminal as an escape sequence, or reversed.
    text = match.text.translate(_ESCAPED)
    click.echo(f"line {match.line}: {match.card.id} ({match.signature.confidence.value}): {text}")


def _summary_text(summary: Summary) -> str:
    more = []
    if summary.undecided:
        names = ", ".join(one.id for one in summary.undecided)
        more = [f"Cannot be told without --version (also python==…) and --exit: {names}."]
    if not summary.found:
        return "\n".join((f"{_lines(summary)}, and no known failure in them.", *more))
    lines = []
    cards = {one.card.id: one.card for one in summary.found}
    for card in cards.values():
        lines += ["", f"{card.id}: {card.title}"]
        for one in summary.found:
            if one.card is card:
                times = "once" if one.count == 1 else f"{one.count} times, the last in line {one.last}"
                lines.append(f"  {one.signature.confidence.value} confidence, in line {one.first}, {times}")
                lines += [f"  {one.signature.note}"] if one.signature.note else []
        lines += [] if card.fixes else [f"  fix: {NONE_KNOWN}"]
        for fix in card.fixes:
            lines += [f"  fix: {fix.title}", f"    {fix.how}", f"    Not when: {fix.not_when}"]
    return "\n".join((*lines, "", *more, f"{_lines(summary)} read."))


def _lines(summary: Summary) -> str:
    return "1 line" if summary.lines == 1 else f"{summary.lines} lines"
