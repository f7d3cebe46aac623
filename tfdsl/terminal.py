"""How the command line speaks: faults in colour on stderr, never a traceback, and an exit status that says which kind.

0: all is well; 1: faults were found, or what was asked for could not be done; 2: wrong usage; 70: a fault of the
program itself; 130: interrupted.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from tfdsl.language.diagnostics import Diagnostic, SpecError, did_you_mean

FAULTS, USAGE, INTERNAL, INTERRUPTED = 1, 2, 70, 130
_TRACEBACK = "TFM_TRACEBACK"
_STYLES: tuple[tuple[re.Pattern[str], dict[str, Any]], ...] = (
    (re.compile(r"error(\[\w+\])?:"), {"fg": "red", "bold": True}),
    (re.compile(r"help:"), {"fg": "green", "bold": True}),
    (re.compile(r" *(-->|:::|=) "), {"fg": "blue", "bold": True}),
    (re.compile(r"[ \d]*\|(?= |$)"), {"fg": "blue", "bold": True}),
)
_CARETS = re.compile(r"\^.*")


class Commands(click.Group):
    """A group of commands under which whatever goes wrong becomes a message and an exit status."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; ends the process, as Click's own does, unless `standalone_mode` is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        arguments = list(sys.argv[1:] if args is None else args)
        sys.exit(_flush(self._run(arguments, prog_name, complete_var, extra)))

    def _run(self, arguments: list[str], program: str | None, complete: str | None, extra: dict[str, Any]) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            result = super().main(arguments, program, complete, False, **extra)
        except SpecError as error:
            return show_faults(error.diagnostics)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help() if error.ctx else "")
            return 0
        except click.ClickException as error:
            show_faults([_usage(error)])
            return USAGE
        except click.Abort:
            say("interrupted")
            return INTERRUPTED
        except MemoryError:
            return show_faults([Diagnostic("T902", "there is not enough memory for this")])
        except OSError as error:
            return _refused(error)
        except Exception as error:  # the last place: a fault of ours must not bury the user in a traceback
            if "--traceback" in arguments or os.environ.get(_TRACEBACK):
                raise
            return _internal(error)
        return result if isinstance(result, int) else 0

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of a name; names near a wrong one are suggested."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            near = did_you_mean(args[0], known, "the commands are " + ", ".join(known))
            raise click.UsageError(f"there is no command `{args[0]}`; {near}", ctx)
        return super().resolve_command(ctx, args)


def show_faults(diagnostics: Iterable[Diagnostic]) -> int:
    """Write diagnostics to stderr, and give the exit status that goes with them."""
    say("\n\n".join(paint(diagnostic.render()) for diagnostic in diagnostics))
    return FAULTS


def say(text: str) -> None:
    """A message for the person at the terminal, on stderr; colours go where they are understood."""
    click.echo(text, err=True, color=False if os.environ.get("NO_COLOR") else None)


def paint(text: str) -> str:
    """A rendered diagnostic in colour."""
    return "\n".join(_paint_line(line) for line in text.split("\n"))


def _paint_line(line: str) -> str:
    for pattern, style in _STYLES:
        found = pattern.match(line)
        if found is None:
            continue
        head, rest = line[: found.end()], line[found.end() :]
        if "error" in head:
            return click.style(head, **style) + click.style(rest, bold=True)
        carets = _CARETS.search(rest) if head.strip() == "|" else None
        if carets is not None:
            rest = rest[: carets.start()] + click.style(carets[0], fg="red", bold=True)
        return click.style(head, **style) + rest
    return line


# What Click says of text that is no number, "is not a valid integer range", and what is meant.
_NO_NUMBER = re.compile(r"\ba valid (integer|float)(?: range)?$")
_NUMBERS = {"integer": "a whole number", "float": "a number"}


def _usage(error: click.ClickException) -> Diagnostic:
    """Wrong usage in the words and the form of every other fault."""
    message = _NO_NUMBER.sub(lambda found: _NUMBERS[found[1]], error.format_message().rstrip("."))
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_ = f"{context.command_path} --help" if context else ""
    return Diagnostic("T901", message[:1].lower() + message[1:], help=help_)


def _refused(error: OSError) -> int:
    """What the system refused. A reader of ours that has gone (`tfm show x | head`) is told nothing."""
    if error.errno == errno.EPIPE:
        return _broken_pipe()
    name = f"`{error.filename}`: " if error.filename else ""
    return show_faults([Diagnostic("T902", f"{name}{(error.strerror or str(error)).lower()}")])


def _flush(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        return _refused(error)
    return status


def _broken_pipe() -> int:
    """Nothing more can be written; the interpreter must not try to when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return FAULTS


def _internal(error: Exception) -> int:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    say(
        paint(f"error: a fault of tfm itself: {type(error).__name__}: {error} ({place})")
        + "\n"
        + paint("help: please report it, with the spec and what `tfm --traceback ...` prints")
    )
    return INTERNAL


__all__ = ["Commands", "paint", "say", "show_faults"]
