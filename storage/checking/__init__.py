"""`codweb check`: what is wrong with a datastore, series by series. Reads only.

findings.py   what can be found, and how bad it is
series.py     one series: its metadata, its instances, its tar
datastore.py  all of them
"""

from storage.checking.datastore import check_datastore
from storage.checking.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check_datastore"]
