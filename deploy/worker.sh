#!/usr/bin/env bash
# A Prefect worker whose flow runs reach the Ray cluster: joins it as a node without cores, since a driver needs a
# raylet beside it, then polls the work pool. Ends when either ends, so that whatever runs it starts both anew.
#   densemask-worker POOL [OPTION OF ray start ...]
#   RAY_ADDRESS      host:port of the head
#   PREFECT_API_URL  the Prefect server's API
set -euo pipefail
: "${RAY_ADDRESS:?host:port of the Ray head is needed}" "${PREFECT_API_URL:?the API of the Prefect server is needed}"
pool=${1:?the name of a work pool is needed}
shift

ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --block "$@" &
prefect worker start --pool "$pool" --type process &
trap 'kill -TERM $(jobs -p) 2>/dev/null || true' TERM INT
wait -n || true
echo "densemask-worker: the raylet or the Prefect worker has ended" >&2
kill -TERM $(jobs -p) 2>/dev/null || true
wait || true
exit 1
