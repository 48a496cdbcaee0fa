#!/bin/bash
# A campaign: send_campaign.sh NAME < recipients.jsonl, a JSON object {"to", "merge_data"} a line. Run it again after a break, and it goes on. Needs jq.
set -euo pipefail
# shellcheck source=deploy/examples/clients/shell/bypost_queue.sh
. "$(dirname "$0")/bypost_queue.sh"

CHUNK=200
name=$1
content='{"from":"Example News <news@example.org>","subject":"{{first_name}}, the March letter","text":"Dear {{first_name}}!\n"}'
id=$(sha256sum <<<"$content" | cut -c 1-32) # the same content is stored once
redis SET "$PREFIX:content:$id" "$content" >/dev/null
for ((shard = 0; shard < SHARDS; shard++)); do
    call bypost_campaign_create $shard "$name" content "$id" weight 1 >/dev/null
done
number=0
while mapfile -t -n $CHUNK lines && ((${#lines[@]})); do
    job=$(printf '%s\n' "${lines[@]}" | jq -cs --arg content "$id" --arg campaign "$name" '{content: $content, campaign: $campaign, recipients: .}')
    call bypost_campaign_add $((number % SHARDS)) "$name" $number "$job" ${#lines[@]} "$id" >/dev/null
    redis PERSIST "$PREFIX:content:$id" >/dev/null # while more is coming the content stays
    number=$((number + 1))
done
for ((shard = 0; shard < SHARDS; shard++)); do
    call bypost_campaign_set $shard "$name" closed 1 >/dev/null
done
echo "$name is complete"
