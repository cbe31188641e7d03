"""An S3 bucket that is far away, on this machine: a folder served with the latency and the bandwidth of a cloud."""
