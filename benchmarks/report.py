"""What came out: tables for people, JSON for programs. Neither names the machine or a path of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cold import ColdRow
from benchmarks.data import Manifest
from benchmarks.warm import Measured

_CLIENT_BOUND = 0.9
"""Cores of the client above which its own speed is what limits."""
_NOISY = 0.3
"""Cores of other processes above which figures on a small machine mean little."""


@dataclass(frozen=True, slots=True)
class Results:
    """One run."""

    date: str
    machine: dict[str, object]
    manifest: Manifest
    rounds: int
    nginx_version: str | None
    load_before: float
    """Load average of the minute before the run."""
    load_after: float
    others: float
    """Cores that other processes used, over the whole run."""
    seconds: float
    index_seconds: float
    cold: Sequence[ColdRow]
    warm: Sequence[Measured]
    memory_growth_mb: float
    left_out: str | None = None
    """What the limit of time left out, if anything."""

    def as_json(self) -> dict[str, object]:
        return {
            "date": self.date,
            "machine": self.machine,
            "nginx": self.nginx_version,
            "data": _data(self.manifest),
            "rounds": self.rounds,
            "seconds": round(self.seconds, 1),
            "left_out": self.left_out,
            "load": {
                "average_before": self.load_before,
                "average_after": self.load_after,
                "others_cores": round(self.others, 2),
            },
            "index_all": {"seconds": round(self.index_seconds, 2), "instances": _instances(self.manifest)},
            "cold": [_cold_json(row) for row in self.cold if row.values_ms],
            "warm": [_warm_json(measured) for measured in self.warm if measured.cells],
            "whole_series_memory_growth_mb": round(self.memory_growth_mb, 1),
        }

    def as_markdown(self) -> str:
        return "\n\n".join(part for part in (self._heading(), self._one(), self._many(), self._cold()) if part) + "\n"

    def _heading(self) -> str:
        machine, data = self.machine, _data(self.manifest)
        lines = [
            f"{self.date}, {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"Python {machine['python']}, nginx {self.nginx_version or 'not installed'}; "
            f"{f'medians of {self.rounds} rounds' if self.rounds > 1 else 'one round'}.",
            f"Data: {data['small_series']} series of {data['instances']} (64×64, {self.manifest.elements} attributes, "
            f"{self.manifest.all_elements} with those in sequences), {data['slices']} slices of 512×512, "
            f"{data['page_studies']} studies of one instance.",
            f"Other processes used {self.others:.2f} cores meanwhile; load average {self.load_before:.2f} before, "
            f"{self.load_after:.2f} after."
            + (" **Too much for figures to mean anything.**" if self.others > _NOISY else ""),
        ]
        if self.left_out is not None:
            lines.append(f"**Left out: {self.left_out}.**")
        return "\n".join(lines)

    def _one(self) -> str:
        lines = [
            "| One client, warm | answer | p50 ms | p95 ms | p99 ms | server CPU ms | aim ms | nginx p50 ms | ratio |",
            "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for measured in self._of("codweb", 1):
            beside = self._beside(measured)
            p50 = measured.median("p50_ms")
            cells = [
                measured.row.name + _mark(measured),
                _size(measured.answer_bytes),
                *(_figure(value) for value in (p50, measured.median("p95_ms"), measured.median("p99_ms"))),
                _figure(measured.median("cpu_ms")),
                _aim(measured.row.aim_ms, p50),
                _figure(beside.median("p50_ms")) if beside is not None else "",
                f"{p50 / beside.median('p50_ms'):.1f}×" if beside is not None else "",
            ]
            lines.append(_line(cells))
        transfers = [measured for measured in self._of("codweb", 1) if measured.row.is_transfer]
        notes = [
            f"{measured.row.name}: {measured.answer_bytes / measured.median('p50_ms') / 1e3:,.0f} MB/s; "
            f"memory of the server grew by {self.memory_growth_mb:.0f} MB at most."
            for measured in transfers
        ]
        return "\n".join(lines) + "\n\n" + "\n".join(notes)

    def _many(self) -> str:
        lines = [
            "| Many clients, warm | clients | req/s | p95 ms | server CPU ms | client cores | nginx req/s | share |",
            "| --- | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for measured in self.warm:
            if measured.server != "codweb" or measured.clients == 1 or not measured.cells:
                continue
            beside = self._beside(measured)
            rate = measured.median("per_second")
            cells = [
                measured.row.name + _mark(measured),
                str(measured.clients),
                f"{rate:,.0f}",
                _figure(measured.median("p95_ms")),
                _figure(measured.median("cpu_ms")),
                f"{measured.client:.2f}",
                f"{beside.median('per_second'):,.0f}" + _client_bound(beside) if beside is not None else "",
                f"{rate / beside.median('per_second'):.0%}" if beside is not None else "",
            ]
            lines.append(_line(cells))
        return "\n".join(lines) if len(lines) > 2 else ""

    def _cold(self) -> str:
        lines = [
            "| Cold: empty state | median ms | rounds | server CPU ms | aim ms |",
            "| --- | --: | --: | --: | --: |",
        ]
        for row in self.cold:
            if row.values_ms:
                rounds = ", ".join(f"{value:,.0f}" for value in row.values_ms)
                cpu = f"{median(row.cpu_ms):,.0f}" if row.cpu_ms else ""
                lines.append(_line([row.name, f"{row.median_ms:,.0f}", rounds, cpu, _aim(row.aim_ms, row.median_ms)]))
        count, total = _instances(self.manifest), f"{self.index_seconds * 1e3:,.0f}"
        name = f"codweb index of all {count:,} instances ({count / self.index_seconds:,.0f}/s)"
        return "\n".join([*lines, _line([name, total, total, "", ""])])

    def _of(self, server: str, clients: int) -> list[Measured]:
        return [one for one in self.warm if (one.server, one.clients) == (server, clients) and one.cells]

    def _beside(self, measured: Measured) -> Measured | None:
        """nginx's figures for the same row and as many clients."""
        found = [one for one in self._of("nginx", measured.clients) if one.row.name == measured.row.name]
        return found[0] if found else None


def _cold_json(row: ColdRow) -> dict[str, object]:
    return {
        "row": row.name,
        "aim_ms": row.aim_ms,
        "median_ms": round(row.median_ms, 1),
        "rounds_ms": [round(value, 1) for value in row.values_ms],
        "cpu_ms": [round(value) for value in row.cpu_ms],
        "others_cores": [round(value, 2) for value in row.others],
    }


def _warm_json(measured: Measured) -> dict[str, object]:
    names = ("p50_ms", "p95_ms", "p99_ms", "per_second", "cpu_ms")
    return {
        "row": measured.row.name,
        "server": measured.server,
        "clients": measured.clients,
        "answer_bytes": round(measured.answer_bytes),
        **{name: round(measured.median(name), 4) for name in names},
        "client_cores": round(measured.client, 2),
        "others_cores_at_worst": round(measured.others, 2),
        "aim_p50_ms": measured.row.aim_ms if (measured.server, measured.clients) == ("codweb", 1) else None,
        "rounds": [
            {
                "p50_ms": round(cell.times.p50_ms, 4),
                "count": cell.times.count,
                "others_cores": round(cell.spent.others, 2),
            }
            for cell in measured.cells
        ],
    }


def _data(manifest: Manifest) -> dict[str, object]:
    return {
        "seed": manifest.seed,
        "small_series": len(manifest.small),
        "instances": len(manifest.small[0].instances),
        "slices": len(manifest.large.instances),
        "page_studies": len(manifest.page),
        "bytes": sum(series.bytes for series in manifest.series),
        "attributes": manifest.elements,
        "all_attributes": manifest.all_elements,
    }


def _instances(manifest: Manifest) -> int:
    return sum(len(series.instances) for series in manifest.series)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mark(measured: Measured) -> str:
    """What a figure must not be read without."""
    return _client_bound(measured) + (" (busy machine)" if measured.others > _NOISY else "")


def _client_bound(measured: Measured) -> str:
    return " (client at its limit)" if measured.client > _CLIENT_BOUND else ""


def _aim(aim_ms: float | None, value_ms: float) -> str:
    return "" if aim_ms is None else f"{aim_ms:g} {'✅' if value_ms <= aim_ms else '❌'}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
