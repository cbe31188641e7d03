"""`codweb check`: what is wrong with a datastore, series by series. All but `repair` reads only.

findings.py   what can be found, and how bad it is
series.py     one series: its metadata, its instances, its tar
datastore.py  all of them
repair.py     what can be mended under the lock of a series
"""

from storage.checking.datastore import check_datastore, check_one
from storage.checking.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check_datastore", "check_one"]
