#!/bin/bash
# One message, once: send_one.sh ID FROM TO SUBJECT TEXT. Run it again with the same ID, and nothing is sent twice. Needs jq for JSON.
set -euo pipefail
# shellcheck source=deploy/examples/clients/shell/bypost_queue.sh
. "$(dirname "$0")/bypost_queue.sh"

job=$(jq -cn --arg id "$1" --arg from "$2" --arg to "$3" --arg subject "$4" --arg text "$5" '$ARGS.named')
answer=$(call bypost_submit "$(shard_of "$1")" normal "$job" 1 "$1" '')
head -n 2 <<<"$answer" | paste -sd ' ' # the entry's ID; `submitted` or `repeated`
