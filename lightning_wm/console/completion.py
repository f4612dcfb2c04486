"""Completion in the shell: commands, keys, and what keys can be. Imports no torch."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from lightning_wm.console.command import command

OPTIONS = {
    "evaluate": ("lightning_wm.evaluate", "EvaluateOptions"),
    "bench": ("lightning_wm.bench", "BenchOptions"),
    "study": ("lightning_wm.study.__main__", "StudyOptions"),
    "report": ("lightning_wm.report.__main__", "ReportOptions"),
    "export": ("lightning_wm.export", "ExportOptions"),
}
"""Where the keys of each command but `fit` stand."""
USAGE = 'eval "$(lightning_wm completion)"          # in ~/.bashrc or ~/.zshrc'


@command(lambda _: USAGE)
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["lightning_wm"], shell="bash"))
    return 0


def complete() -> None:
    """Answer the shell, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser(), always_complete_options=False)


def parser() -> argparse.ArgumentParser:
    """The command line as argparse knows one, for completion only."""
    from lightning_wm.__main__ import COMMANDS

    made = argparse.ArgumentParser("lightning_wm")
    made.add_argument("command", choices=list(COMMANDS))
    rest: Any = made.add_argument("rest", nargs="*")
    rest.completer = _completer
    return made


def _completer(prefix: str, parsed_args: argparse.Namespace, **kwargs: object) -> list[str]:
    return candidates(parsed_args.command, parsed_args.rest or [], prefix)


def candidates(command: str, before: Sequence[str], prefix: str) -> list[str]:
    """What a word that begins with `prefix` can become.

    Args:
        command: of `lightning_wm`.
        before: the words between them; `planner=cem` brings cem's fields.
    """
    key, equals, typed = prefix.partition("=")
    if not equals:
        words = [f"{known}=" for known in keys(command, before)]
        words += _bare(command)
    else:
        words = [f"{key}={value}" for value in values(command, key, before, typed)]
    return sorted(word for word in words if word.startswith(prefix))


def _bare(command: str) -> list[str]:
    """Words without a value."""
    flags = ["--help", "--debug"]
    if command == "bench":
        from lightning_wm.bench import WORDS

        return [*WORDS, *flags]
    return [*flags, *{"fit": ["--print"], "study": ["status"]}.get(command, [])]


def _kinds(command: str, before: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and what they are annotated with."""
    from lightning_wm import registry
    from lightning_wm.config.keys import dotted
    from lightning_wm.config.schema import Config
    from lightning_wm.config.store import PARTS

    if command not in OPTIONS and command != "fit":
        return {}
    if command == "fit":
        known = dotted(Config)
    else:
        module, name = OPTIONS[command]
        own = dotted(getattr(importlib.import_module(module), name))
        known = {key: kind for key, kind in own.items() if not key.endswith("_fields")}
    for word in before:
        part, equals, named = word.partition("=")
        if equals and part in PARTS and part in known:
            cls = registry.sketches(part).get(named.split(",")[0])
            known |= {} if cls is None else dotted(cls, f"{part}.")
    return known


def keys(command: str, before: Sequence[str]) -> Iterable[str]:
    """Dotted keys of a command."""
    return _kinds(command, before)


def values(command: str, key: str, before: Sequence[str], typed: str = "") -> Iterable[str]:
    """What a key can be, where that is a list of words or a path that begins with `typed`."""
    from lightning_wm import registry
    from lightning_wm.config.fields import members
    from lightning_wm.config.shipped import GROUPS, choices, names, root

    if key == "recipe":
        return [*names(), "list"]
    if key == "study":
        return [path.stem for path in (root() / "study").glob("*.yaml")]
    if key in GROUPS or key == "planners":
        group = key.removesuffix("s") if key == "planners" else key
        words = {*choices(group), *(registry.sketches(group) if group not in ("observation", "trainer") else ())}
        last = typed.rpartition(",")
        return {f"{last[0]}{last[1]}{word}" for word in words}
    if key in ("run", "out", "runs"):
        import argcomplete

        from lightning_wm.runs.sources import zoo

        found: list[str] = argcomplete.completers.FilesCompleter()(typed)
        return [*found, *(f"zoo:{name}" for name in zoo() if key == "run")]
    kind = _kinds(command, before).get(key)
    listed = [str(word) for member in members(kind) if get_origin(member) is Literal for word in get_args(member)]
    return [*listed, *(["true", "false"] if bool in members(kind) else [])]


if __name__ == "__main__":
    raise SystemExit(main(None))
