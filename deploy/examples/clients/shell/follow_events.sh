#!/bin/bash
# Outcomes as they happen, of shard 0: follow_events.sh [LAST_ID [COUNT]] prints the ID, type and recipient of each, behind LAST_ID ($: from now on).
set -euo pipefail
# shellcheck source=deploy/examples/clients/shell/bypost_queue.sh
. "$(dirname "$0")/bypost_queue.sh"

last=${1:-\$}
left=${2:--1}
while ((left != 0)); do
    # The stream's name, then for each entry its ID, "event" and the JSON.
    mapfile -t lines < <(redis --raw XREAD COUNT 1000 BLOCK 5000 STREAMS "$PREFIX:{0}:events" "$last")
    for ((i = 1; i + 2 < ${#lines[@]} && left != 0; i += 3)); do
        last=${lines[i]} # remember it where a restart finds it
        echo "$last $(jq -r '[.type, .recipient, (.response.code // "" | tostring)] | join(" ")' <<<"${lines[i + 2]}")"
        left=$((left - 1))
    done
done
