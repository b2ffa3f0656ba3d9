"""The evidence of proofs, as JSON and as Markdown. No place of the machine is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lastcall_drill.cards.format import Role
from lastcall_drill.cards.verify import Evidence, Proof

FORMAT: Final = 1


def to_json(proofs: Sequence[Proof]) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {"format": FORMAT, "cards": [_proof(proof) for proof in proofs]}


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "id": proof.card.id,
        "title": proof.card.title,
        "date": proof.date,
        "machine": proof.machine,
        "reproduced": proof.reproduced,
        "sentence": proof.sentence,
        "runs": [_run(run) for run in proof.runs],
    }


def _run(run: Evidence) -> dict[str, Any]:
    return {
        "role": run.role.value,
        "title": run.title,
        "outcome": run.outcome.value,
        "as_claimed": run.proves,
        "sentence": run.sentence,
        "python": run.python,
        "versions": dict(run.versions),
        "command": run.command,
        "exit": run.exit,
        "seconds": run.seconds,
        "checks": [dict(vars(check)) for check in run.checks],
        "moments": list(run.moments),
        "output": list(run.output),
    }


def to_markdown(proofs: Sequence[Proof]) -> str:
    """A page: a table of all cards, and a section for each."""
    lines = ["# Evidence of the fix cards", "", "Written by `lastcall drill verify`.", ""]
    lines += ["| card | result | lastcall |", "|---|---|---|"]
    for proof in proofs:
        own = sorted({run.outcome.value for run in proof.runs if run.role is Role.LASTCALL})
        lines.append(f"| [{proof.card.id}](#{proof.card.id}) | {_cell(proof.sentence)} | {', '.join(own)} |")
    for proof in proofs:
        lines += ["", f"## {proof.card.id}", "", f"{proof.card.title}. {proof.date}, {proof.machine}.", ""]
        for run in proof.runs:
            lines += _section(run)
    return "\n".join(lines).rstrip() + "\n"


def _section(run: Evidence) -> list[str]:
    lines = [f"### {run.title}: {run.outcome.value}", ""]
    if run.sentence:
        lines += [run.sentence.partition("\n")[0], ""]
    if not run.command:
        return lines
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines += [f"`{run.command}` on Python {run.python}: {versions}.", ""]
    if run.seconds is None:
        lines += ["The server still ran in the end.", ""]
    else:
        when = "after" if run.seconds >= 0 else "before"
        lines += [f"Exit {abs(run.seconds):.2f} s {when} the last signal: {run.exit}.", ""]
    lines += [f"- {check.list}, `{check.see}`: {'yes' if check.holds else 'no'}; {check.what}" for check in run.checks]
    if run.turn == 1:  # what comes out again is much the same
        lines += ["", "```text", *run.moments, "", *run.output, "```"]
    return [*lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
