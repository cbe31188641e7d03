"""The first answer of a variant: another address of the same server, so that all links of the metadata are others."""

import random

from benchmarks.cold import ColdRow
from benchmarks.data import Manifest
from benchmarks.load import Connection, encode
from benchmarks.machine import Meter
from benchmarks.rows import Question, deep_metadata, deep_study_metadata, studies_of
from benchmarks.server import Server

PER_ROUND = 8


class Variants:
    """Addresses that nobody has used before, one for each question."""

    def __init__(self, manifest: Manifest) -> None:
        self._series = [deep_metadata(manifest, one) for one in manifest.small]
        self._studies = [deep_study_metadata(manifest, uid) for uid in studies_of(manifest.small)]
        self._used = 0
        self.series = ColdRow("series metadata, gzip, first answer for another service root (deep)")
        self.study = ColdRow("study metadata, gzip, first answer for another service root (deep)")

    def round(self, server: Server) -> None:
        """Ask for a few of each. Raises WrongAnswer, Unanswered."""
        chance = random.Random(self._used)
        for row, questions in ((self.series, self._series), (self.study, self._studies)):
            for question in chance.sample(questions, min(PER_ROUND, len(questions))):
                self._ask(server, question, row)

    def _ask(self, server: Server, question: Question, row: ColdRow) -> None:
        self._used += 1
        host = f"variant-{self._used}.example:8042"
        with Connection(server.port) as connection:
            meter = Meter(server.pid)
            answer = connection.get(encode(question.path, {**question.headers, "Host": host}))
            spent = meter.spent()
        question.check(answer)
        row.values_ms.append(answer.seconds * 1e3)
        row.cpu_ms.append(spent.measured_seconds * 1e3)
        row.others.append(spent.others)
