#!/usr/bin/env bash
# Ends what start.sh FOLDER started, and waits for it.
for file in "$1"/run/*.pid; do
  [ -f "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null
  for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || continue 2
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
done
exit 0
