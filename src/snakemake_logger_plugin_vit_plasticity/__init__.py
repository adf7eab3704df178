"""A few live lines instead of Snakemake's log: jobs done, what runs now and how far it is, time left; and what failed,
in the words of the stage. Everything that Snakemake says stays in ``.snakemake/log``.

Snakemake finds this package by its name: ``--logger vit-plasticity``. With ``--logger-vit-plasticity-full``,
``--verbose`` or ``--printshellcmds`` its own log takes the place of the lines. Off a terminal only what failed is
printed.

What others write to the terminal meanwhile, such as the notes of a job, is passed on between the lines: written past
them, it would move the lines on the screen, and be erased with them.
"""

import atexit
import os
import select
import sys
import threading
import time
from dataclasses import dataclass, field

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_vit_plasticity.view import Study, said_by_stage

RED, PLAIN = "\033[31m", "\033[0m"
EVERY_S = 0.5


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """What a user may choose on the command line."""

    full: bool = field(default=False, metadata={"help": "print all that Snakemake says", "required": False})


class LogHandler(LogHandlerBase):
    """Snakemake's records turned into a few lines on standard error."""

    writes_to_stream, writes_to_file = True, False
    has_filter = has_formatter = needs_rulegraph = False  # Snakemake's own, for what is passed on as it is

    def __post_init__(self):
        self.study, self.drawn, self.screen = Study(), 0, threading.RLock()
        asked = self.common_settings
        self.plain = asked.dryrun or asked.verbose or asked.printshellcmds or asked.debug_dag
        self.plain = self.plain or bool(self.settings and self.settings.full)
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.live = not self.plain and self.stream.isatty()
        if self.live:
            self._take_over()

    def emit(self, record):
        """Take note of a record; print it where somebody must see it."""
        with self.screen:
            if text := self._text(record):
                self._erase()
                print(text, file=self.stream, flush=True)
            self._draw()

    def close(self):
        """Leave the terminal clean, and to others."""
        if self.live:
            os.dup2(self.stream.fileno(), self.taken)
            self.live = False
            self.thread.join()
        super().close()

    def _take_over(self):
        """Put a pipe in the place of the terminal, for this process and its children, and read it in a thread."""
        self.taken = self.stream.fileno()
        self.stream = os.fdopen(os.dup(self.taken), "w", encoding=self.stream.encoding, errors="backslashreplace")
        self.others, writer = os.pipe()
        os.dup2(writer, self.taken)
        os.close(writer)
        self.thread = threading.Thread(target=self._pass_on, daemon=True)
        self.thread.start()
        atexit.register(self.close)  # also where Snakemake ends with an error of its own

    def _text(self, record):
        """What is to be printed of a record, or ""."""
        event, about = getattr(record, "event", None), record.__dict__
        if self.plain:
            return self.format(record) or ""
        if event == LogEvent.RUN_INFO:
            self.study.plan(about["stats"])
        elif event == LogEvent.JOB_INFO:
            self.study.start(about, time.monotonic())
        elif event == LogEvent.JOB_FINISHED:
            self.study.finish(about["job_id"], time.monotonic())
        elif event == LogEvent.JOB_ERROR:
            job = self.study.fail(about["jobid"])
            return self._red(f"{job} failed: {said_by_stage(about['log'])}")
        elif event == LogEvent.PROGRESS:
            self.study.done, self.study.total = about["done"], about["total"]
        elif event == LogEvent.ERROR:
            return self._red(self.format(record))
        elif event is None and (record.levelname not in ("DEBUG", "INFO") or "Nothing to be done" in record.msg):
            return self.format(record) or ""
        return ""

    def _red(self, text):
        return f"{RED}{text}{PLAIN}" if self.live and not self.common_settings.nocolor else text

    def _pass_on(self):
        """Redraw now and then; what others have written, in whole lines, comes above the lines and stays."""
        written = b""
        while (ready := select.select([self.others], [], [], EVERY_S if self.live else 0)[0]) or self.live:
            if ready and not (piece := os.read(self.others, 65536)):
                break  # the terminal is given back, and no other process writes to the pipe
            whole, _, written = (written + (piece if ready else b"")).rpartition(b"\n")
            self._say(whole)
        self._say(written)
        with self.screen:
            self._erase()

    def _say(self, text):
        with self.screen:
            if text:
                self._erase()
                print(text.decode(errors="replace"), file=self.stream, flush=True)
            self._draw()

    def _draw(self):
        if self.live:
            self._erase()
            lines = self.study.lines(time.monotonic())
            self.stream.write("".join(f"{line}\n" for line in lines))
            self.stream.flush()
            self.drawn = len(lines)

    def _erase(self):
        if self.drawn:
            self.stream.write(f"\033[{self.drawn}F\033[J")  # up, and everything below away
            self.drawn = 0
