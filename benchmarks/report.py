"""What came out of reading: tables for people, JSON for programs. Neither names the machine or a path of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cold import ColdRow
from benchmarks.data import Manifest
from benchmarks.rows import MANY
from benchmarks.tables import figure, mark, row, share, size, table
from benchmarks.warm import Measured

CODWEB, FEW, NGINX, ORTHANC = "codweb", "codweb, few studies", "nginx", "Orthanc"
OPEN_INDEXES = 512
"""Series indexes that one codweb keeps open (`storage.indexing.shelf`)."""
GROWTH_AIM, WORKERS_AIM = 1.2, 1.8
_CLIENT_BOUND = 0.9
"""Cores of the Python client above which its own speed is what limits."""
_NOISY = 0.3
"""Cores of other processes above which figures on a small machine mean little."""


def two_workers(count: int) -> str:
    """The name of codweb with so many workers."""
    return f"codweb, {count} workers"


@dataclass(frozen=True, slots=True)
class Aim:
    """Something that was to be reached, and what was."""

    name: str
    reached: bool
    value: str


@dataclass(frozen=True, slots=True)
class Results:
    """One run."""

    date: str
    command: str
    machine: Mapping[str, object]
    manifest: Manifest
    rounds: int
    client: str
    nginx_version: str | None
    orthanc_version: str | None
    workers: int
    """Of the server that is measured beside the one with one worker; 1: this codweb has one only."""
    load_before: float
    """Load average of the minute before the run."""
    load_after: float
    others: float
    """Cores that other processes used, over the whole run."""
    seconds: float
    index_seconds: float
    cold: Sequence[ColdRow]
    warm: Sequence[Measured]
    memory_growth_mb: Mapping[str, float]
    left_out: str | None = None
    """What the limit of time left out, if anything."""

    def as_json(self) -> dict[str, object]:
        return {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "client": self.client,
            "nginx": self.nginx_version,
            "orthanc": self.orthanc_version,
            "data": _data(self.manifest),
            "rounds": self.rounds,
            "seconds": round(self.seconds, 1),
            "left_out": self.left_out,
            "load": {
                "average_before": self.load_before,
                "average_after": self.load_after,
                "others_cores": round(self.others, 2),
            },
            "index_all": {"seconds": round(self.index_seconds, 2), "instances": self.manifest.instances},
            "cold": [_cold_json(one) for one in self.cold if one.values_ms],
            "warm": [_warm_json(measured) for measured in self.warm if measured.cells],
            "whole_series_memory_growth_mb": {name: round(mb, 1) for name, mb in self.memory_growth_mb.items()},
            "aims": [{"aim": aim.name, "reached": aim.reached, "value": aim.value} for aim in self.aims()],
        }

    def as_markdown(self) -> str:
        parts = (self._heading(), self._one(), self._many(), self._growth(), self._cold(), self._aims())
        return "\n\n".join(part for part in parts if part) + "\n"

    def aims(self) -> list[Aim]:
        """Every aim that this run can judge."""
        found = []
        for measured in self._of(CODWEB, 1):
            found += _below(measured.row.name, measured.row.aim_ms, measured.median("p50_ms"))
        for cold in self.cold:
            if cold.values_ms:
                found += _below(cold.name, cold.aim_ms, cold.median_ms)
        for measured in self._of(CODWEB, MANY[-1]):
            found += self._many_aims(measured)
        if grown := self._grown():
            worst, few, many = max(grown, key=lambda one: one[2] / one[1])
            value = f"{many / few - 1:+.0%} ({worst})"
            found.append(Aim(f"no row grows by more than {GROWTH_AIM - 1:.0%}", many <= few * GROWTH_AIM, value))
        return found

    def _many_aims(self, measured: Measured) -> list[Aim]:
        found, rate, clients = [], measured.median("per_second"), f"at {measured.clients} clients"
        name, beside = measured.row.name, self._beside(NGINX, measured)
        if measured.row.aim_share is not None and beside is not None:
            part = rate / beside.median("per_second")
            reached = part >= measured.row.aim_share
            found.append(
                Aim(f"{name}: ≥ {measured.row.aim_share:.0%} of nginx's rate {clients}", reached, f"{part:.0%}")
            )
        if measured.row.aim_per_second is not None:
            reached = rate >= measured.row.aim_per_second
            found.append(Aim(f"{name}: ≥ {measured.row.aim_per_second:,.0f}/s {clients}", reached, f"{rate:,.0f}/s"))
        several = self._beside(two_workers(self.workers), measured)
        if several is not None:
            times = several.median("per_second") / rate
            wanted = f"{name}: {self.workers} workers ≥ {WORKERS_AIM} times one {clients}"
            found.append(Aim(wanted, times >= WORKERS_AIM, f"{times:.2f}×"))
        return found

    def _heading(self) -> str:
        machine, data = self.machine, _data(self.manifest)
        series = len(self.manifest.series) + len(self.manifest.slides)
        lines = [
            f"Command: `{self.command}`. Every answer was checked against the data before it was timed.",
            "",
            f"{self.date}, {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"Python {machine['python']}, nginx {self.nginx_version or 'not installed'}, "
            f"Orthanc {self.orthanc_version or 'not measured'}; client: {self.client}; "
            f"{f'medians of {self.rounds} rounds' if self.rounds > 1 else 'one round'}, "
            f"{self.seconds / 60:.0f} minutes.",
            f"Data: {data['small_series']} series of {data['instances']} (64×64, {self.manifest.elements} attributes, "
            f"{self.manifest.all_elements} with those in sequences), {data['slices']} slices of 512×512, two slides of "
            f"{data['tiles']:,} tiles, {data['page_studies']} studies of one instance: "
            f"{self.manifest.instances:,} instances of {len(self.manifest.study_uids)} studies, "
            f"{self.manifest.bytes / 1e6:,.0f} MB.",
            f"{series} series, "
            + ("more than" if series > OPEN_INDEXES else "**no more than**")
            + f" the {OPEN_INDEXES} whose indexes codweb keeps open.",
            f"Other processes used {self.others:.2f} cores meanwhile; load average {self.load_before:.2f} before, "
            f"{self.load_after:.2f} after."
            + (" **Too much for figures to mean anything.**" if self.others > _NOISY else ""),
        ]
        if self.left_out is not None:
            lines.append(f"**Left out: {self.left_out}.**")
        return "\n".join(lines)

    def _one(self) -> str:
        heads = ["One client, warm", "answer", "p50 ms", "p95 ms", "p99 ms", "server CPU ms", "aim ms"]
        lines = table([*heads, "nginx p50 ms", "ratio", "Orthanc p50 ms", "Orthanc ratio"])
        for measured in self._of(CODWEB, 1):
            p50 = measured.median("p50_ms")
            cells = [
                measured.row.name + _mark(measured),
                size(measured.answer_bytes),
                *(figure(measured.median(name)) for name in ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")),
                mark(measured.row.aim_ms, p50),
            ]
            for peer in (NGINX, ORTHANC):
                beside = self._beside(peer, measured)
                cells.append(figure(beside.median("p50_ms")) + _mark(beside) if beside is not None else "")
                cells.append(_ratio(p50, beside.median("p50_ms")) if beside is not None else "")
            lines.append(row(cells))
        notes = [
            f"{measured.row.name}: {measured.answer_bytes / measured.median('p50_ms') / 1e3:,.0f} MB/s; memory grew at "
            "most by " + ", ".join(f"{mb:,.0f} MB ({name})" for name, mb in self.memory_growth_mb.items()) + "."
            for measured in self._of(CODWEB, 1)
            if measured.row.is_transfer
        ]
        return "\n".join(lines) + "\n\n" + "\n".join(notes)

    def _many(self) -> str:
        heads = ["Many clients, warm", "clients", "req/s", "p50 ms", "p95 ms", "server CPU ms", "client cores"]
        several = two_workers(self.workers)
        lines = table([*heads, "nginx req/s", "share", "Orthanc req/s", f"{self.workers} workers req/s", "× one"])
        for clients in MANY:
            for measured in self._of(CODWEB, clients):
                rate = measured.median("per_second")
                cells = [
                    measured.row.name + _mark(measured),
                    str(clients),
                    f"{rate:,.0f}",
                    *(figure(measured.median(name)) for name in ("p50_ms", "p95_ms", "cpu_ms")),
                    f"{measured.client_cores:.2f}",
                ]
                for peer, compared in ((NGINX, True), (ORTHANC, False)):
                    beside = self._beside(peer, measured)
                    cells.append(_rate(beside))
                    if compared:
                        cells.append(share(rate, beside.median("per_second")) if beside is not None else "")
                beside = self._beside(several, measured)
                cells += [_rate(beside), f"{beside.median('per_second') / rate:.2f}" if beside is not None else ""]
                lines.append(row(cells))
        return "\n".join(lines) if len(lines) > 2 else ""

    def _growth(self) -> str:
        few, many = len(self.manifest.of_few().study_uids), len(self.manifest.study_uids)
        lines = table(["One client, p50 ms", f"{few} studies", f"{many} studies", "growth"])
        for name, before, after in self._grown():
            lines.append(row([name, figure(before), figure(after), f"{after / before - 1:+.0%}"]))
        return "\n".join(lines) if len(lines) > 2 else ""

    def _grown(self) -> list[tuple[str, float, float]]:
        """Row, p50 with few studies, p50 with all."""
        found = []
        for measured in self._of(CODWEB, 1):
            few = self._beside(FEW, measured)
            is_other = few is not None and abs(few.answer_bytes / measured.answer_bytes - 1) > 0.1
            if few is not None and not is_other:  # a page of more studies is not the same answer
                found.append((measured.row.name, few.median("p50_ms"), measured.median("p50_ms")))
        return found

    def _cold(self) -> str:
        lines = table(["First answers", "median ms", "least to most", "answers", "server CPU ms", "aim ms"])
        for one in self.cold:
            if one.values_ms:
                spread = f"{min(one.values_ms):,.0f} to {max(one.values_ms):,.0f}"
                cpu = f"{median(one.cpu_ms):,.0f}" if one.cpu_ms else ""
                cells = [one.name, figure(one.median_ms), spread, str(len(one.values_ms)), cpu]
                lines.append(row([*cells, mark(one.aim_ms, one.median_ms)]))
        count = self.manifest.instances
        name = f"codweb index of all {count:,} instances ({count / self.index_seconds:,.0f}/s)"
        return "\n".join([*lines, row([name, f"{self.index_seconds * 1e3:,.0f}", "", "1", "", ""])])

    def _aims(self) -> str:
        """What limits each is for people to say."""
        lines = table(["aim", "reached", "value", "what limits it"])
        lines += [row([aim.name, "✅" if aim.reached else "❌", aim.value, ""]) for aim in self.aims()]
        return "\n".join(lines)

    def _of(self, server: str, clients: int) -> list[Measured]:
        return [one for one in self.warm if (one.server, one.clients) == (server, clients) and one.cells]

    def _beside(self, server: str, measured: Measured) -> Measured | None:
        """Another server's figures for the same row and as many clients."""
        found = [one for one in self._of(server, measured.clients) if one.row.name == measured.row.name]
        return found[0] if found else None


def _below(name: str, aim_ms: float | None, value_ms: float) -> list[Aim]:
    return [] if aim_ms is None else [Aim(f"{name} ≤ {aim_ms:g} ms", value_ms <= aim_ms, f"{figure(value_ms)} ms")]


def _cold_json(one: ColdRow) -> dict[str, object]:
    return {
        "row": one.name,
        "aim_ms": one.aim_ms,
        "median_ms": round(one.median_ms, 1),
        "rounds_ms": [round(value, 1) for value in one.values_ms],
        "cpu_ms": [round(value) for value in one.cpu_ms],
        "others_cores": [round(value, 2) for value in one.others],
    }


def _warm_json(measured: Measured) -> dict[str, object]:
    names = ("p50_ms", "p95_ms", "p99_ms", "per_second", "cpu_ms")
    return {
        "row": measured.row.name,
        "server": measured.server,
        "clients": measured.clients,
        "client": measured.client,
        "answer_bytes": round(measured.answer_bytes),
        **{name: round(measured.median(name), 4) for name in names},
        "client_cores": round(measured.client_cores, 2),
        "others_cores_at_worst": round(measured.others, 2),
        "aim_p50_ms": measured.row.aim_ms if (measured.server, measured.clients) == (CODWEB, 1) else None,
        "rounds": [
            {
                "p50_ms": round(cell.times.p50_ms, 4),
                "count": cell.times.count,
                "others_cores": round(cell.spent.others, 2),
            }
            for cell in measured.cells
        ],
    }


def _data(manifest: Manifest) -> dict[str, int]:
    return {
        "seed": manifest.seed,
        "small_series": len(manifest.small),
        "instances": len(manifest.small[0].instances),
        "slices": len(manifest.large.instances),
        "tiles": len(manifest.slides[0].tiles),
        "page_studies": len(manifest.page),
        "bytes": manifest.bytes,
        "attributes": manifest.elements,
        "all_attributes": manifest.all_elements,
    }


def _ratio(own: float, other: float) -> str:
    """How many times longer, or (Orthanc) which part."""
    return f"{own / other:.1f}×" if own >= other else f"1/{other / own:,.0f}"


def _rate(measured: Measured | None) -> str:
    return "" if measured is None else f"{measured.median('per_second'):,.0f}" + _client_bound(measured)


def _mark(measured: Measured) -> str:
    """What a figure must not be read without."""
    return _client_bound(measured) + (" (busy machine)" if measured.others > _NOISY else "")


def _client_bound(measured: Measured) -> str:
    return " (client at its limit)" if measured.client_cores > _CLIENT_BOUND else ""
