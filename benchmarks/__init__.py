"""Measurements of codweb, each run by one command; README.md says how, RESULTS.md what came out."""
