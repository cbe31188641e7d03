"""Cloud Optimized DICOM over byte ranges: buckets, COD series, series indexes, catalogue, archive. Knows no HTTP."""
