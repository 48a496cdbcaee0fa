# shellcheck shell=bash
# Where the queue is, and how its Functions are called. Needs redis-cli (redis-tools).

PREFIX=${BYPOST_PREFIX:-bypost}
SHARDS=${BYPOST_SHARDS:-1}

redis() {
    if [[ -n ${REDIS_SOCKET:-} ]]; then
        redis-cli -s "$REDIS_SOCKET" "$@"
    else
        redis-cli -u "${REDIS_URL:-redis://127.0.0.1:6379}" "$@"
    fi
}

# shard_of ID: by CRC16 (XMODEM), so that its repeat meets it there. Redis has it in CLUSTER KEYSLOT only when it is a cluster.
shard_of() {
    local LC_ALL=C crc=0 byte i bit
    for ((i = 0; i < ${#1}; i++)); do
        printf -v byte %d "'${1:i:1}"
        ((crc ^= (byte & 255) << 8))
        for ((bit = 0; bit < 8; bit++)); do ((crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xffff)); done
    done
    echo $((crc % SHARDS))
}

# call FUNCTION SHARD QUEUE ARGUMENT...: waits while the queue is full; prints the answer, a line an element.
call() {
    local function=$1 shard=$2 queue=$3 answer wait=1
    shift 3
    while answer=$(redis FCALL "$function" 1 "$PREFIX:{$shard}:q:$queue" "$PREFIX:{$shard}:" "$queue" "$@" 2>&1); do
        case $answer in
        QUEUE_FULL* | *OOM*) sleep $wait && wait=$((wait < 5 ? wait + 1 : 5)) ;;
        *ERR\ * | ARGUMENTS* | CAMPAIGN_* | *'onnect'*) echo "$answer" >&2 && return 1 ;;
        *) echo "$answer" && return ;;
        esac
    done
    echo "$answer" >&2
    return 1
}
