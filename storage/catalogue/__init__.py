"""What QIDO searches: a derived catalogue of studies and series, its matching rules, and its sync with the bucket."""
