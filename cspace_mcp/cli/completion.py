"""A completion script for your shell, made from the programs' own parsers.

    bash   source <(cspace completion bash)          in ~/.bashrc
    zsh    source <(cspace completion zsh)           in ~/.zshrc, after compinit
    fish   cspace completion fish | source           in ~/.config/fish/config.fish

It completes verbs and options of cspace and netpolicy, and the names of instances.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from cspace_mcp.cli import surface
from netpolicy.errors import Exit

_NAMES = "cspace list --names 2>/dev/null"


@dataclass(frozen=True, slots=True)
class Words:
    """What may follow a row of words."""

    path: tuple[str, ...]
    """``cspace``, ``cspace up``, ``cspace image build``, ..."""
    options: tuple[tuple[str, str], ...]
    """(long option, what it does)."""
    choices: tuple[tuple[str, str], ...]
    """(verb or word, what it does)."""
    instances: bool
    """Whether an instance's name belongs here."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    words = list(vocabulary())
    surface.say(fish(words) if args.shell == "fish" else bash(words, zsh=args.shell == "zsh"))
    return Exit.OK


def vocabulary() -> Iterator[Words]:
    """Everything that both programs understand."""
    from cspace_mcp.cli import PROGRAM
    from netpolicy.cli import PROGRAM as NETPOLICY

    for program in (PROGRAM, NETPOLICY):
        yield Words((program.name,), (), tuple((verb.name, verb.help) for verb in program.verbs), instances=False)
        for verb in program.verbs:
            yield from _parser((program.name, verb.name), program.parser(verb))


def _parser(path: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Words]:
    options: list[tuple[str, str]] = []
    choices: list[tuple[str, str]] = []
    below: list[Words] = []
    instances = False
    for action in parser._actions:  # argparse offers no other way to read a parser
        if isinstance(action, argparse._SubParsersAction):
            choices += [(entry.dest, entry.help or "") for entry in action._choices_actions]
            for name, child in action.choices.items():
                below += _parser((*path, name), child)
        elif action.option_strings:
            options += [(word, action.help or "") for word in action.option_strings if word.startswith("--")]
        else:
            instances |= action.metavar == "NAME"
            choices += [(str(choice), "") for choice in action.choices or ()]
    yield Words(path, tuple(options), tuple(choices), instances)
    yield from below


def bash(words: list[Words], *, zsh: bool = False) -> str:
    """For bash; zsh runs the same through its own emulation."""
    cases = []
    for entry in words:
        plain = " ".join(word for word, _ in (*entry.choices, *entry.options))
        names = f" $({_NAMES})" if entry.instances else ""
        cases.append(f'    "{" ".join(entry.path)}") offer="{plain}{names}" ;;')
    head = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    body = "\n".join(cases)
    return f"""{head}_cspace() {{
  local seen="${{COMP_WORDS[0]##*/}}" offer="" index word
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${{COMP_WORDS[index]}}"
    [[ "$word" == -- ]] && return
    case " $_cspace_paths " in *"|$seen $word|"*) seen="$seen $word" ;; esac
  done
  case "$seen" in
{body}
  esac
  COMPREPLY=($(compgen -W "$offer" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
_cspace_paths="|{"|".join(" ".join(entry.path) for entry in words)}|"
complete -o default -F _cspace cspace netpolicy"""


def fish(words: list[Words]) -> str:
    """For fish."""
    lines = []
    for entry in words:
        program, *rest = entry.path
        seen = " ".join(rest)
        where = f"__fish_seen_subcommand_from {rest[-1]}" if rest else "__fish_use_subcommand"
        if len(rest) == 1:
            where = f"test (count (commandline -opc)) -gt 1; and test (commandline -opc)[2] = {seen}"
        for word, help_text in entry.choices:
            lines.append(f"complete -c {program} -f -n '{where}' -a '{word}' -d {_quoted(help_text)}")
        for word, help_text in entry.options:
            lines.append(f"complete -c {program} -n '{where}' -l '{word.removeprefix('--')}' -d {_quoted(help_text)}")
        if entry.instances:
            lines.append(f"complete -c {program} -f -n '{where}' -a '({_NAMES})' -d 'instance'")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
