#!/bin/bash
# Labels of this machine for `ray start --labels`: GB (10^9 bytes) of the smallest of its GPUs; nothing without one.
nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null |
  awk '$1 + 0 > 0 && (!least || $1 < least) { least = $1 } END { if (least) print "gpu-memory-gb=" int(least * 1.048576 / 1000) }'
