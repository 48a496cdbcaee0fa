# shellcheck shell=bash
# What deploy/setup says to the person who runs it: one line for each thing done, skipped or refused, and a log for the rest.

SAY_LOG=

say_did() { printf '  done     %s\n' "$*"; }
say_skip() { printf '  skipped  %s\n' "$*"; }
say_now() { printf '  ...      %s\n' "$*"; }
say_warn() { printf '  warning  %s\n' "$*" >&2; }
say_step() { printf '%s\n' "$*"; }

# say_die WHAT REMEDY: ends the run; the remedy is what the operator can do about it.
say_die() {
    printf '\nsetup stopped: %s\n' "$1" >&2
    printf '  remedy: %s\n' "$2" >&2
    if [[ -n $SAY_LOG && -s $SAY_LOG ]]; then
        printf '  the commands and their output: %s\n' "$SAY_LOG" >&2
    fi
    exit 1
}

# say_log_open DIR: opens the log; a directory that cannot be written gets a log in the temporary directory instead.
say_log_open() {
    if [[ -d $1 && -w $1 ]]; then
        SAY_LOG=$1/setup.log
        [[ ! -f $SAY_LOG ]] || mv -f -- "$SAY_LOG" "$SAY_LOG.1"
        : >"$SAY_LOG"
    else
        SAY_LOG=$(mktemp "${TMPDIR:-/tmp}/bypost-setup.XXXXXX")
    fi
}

# say_log_run COMMAND...: runs a command with its output in the log and nothing on standard input.
say_log_run() {
    printf '\n$ %s\n' "$*" >>"$SAY_LOG"
    "$@" >>"$SAY_LOG" 2>&1 </dev/null
}

# say_log_tail N: the end of the log, indented, for a failure.
say_log_tail() {
    [[ -n $SAY_LOG && -s $SAY_LOG ]] && tail -n "${1:-15}" -- "$SAY_LOG" | sed 's/^/    | /' >&2
}

# say_free_mib DIR: free mebibytes where DIR is or would be made.
say_free_mib() {
    local dir=$1
    while [[ ! -d $dir ]]; do dir=$(dirname -- "$dir"); done
    df -Pk -- "$dir" | awk 'NR == 2 { printf "%d", $4 / 1024 }'
}
