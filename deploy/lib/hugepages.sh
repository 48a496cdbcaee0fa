# shellcheck shell=bash
# Hugepages of 2 MiB for DPDK. Never a reason to fail: bypost also runs without them, slower.

HUGEPAGES_DEFAULT=512
HUGEPAGES_FILE=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages

# hugepages_setup N|auto|none
hugepages_setup() {
    local want=$1 asked=$1 have free_mib got
    if [[ $want == none ]]; then
        say_skip "hugepages: as asked"
        return
    fi
    if [[ ! -r $HUGEPAGES_FILE ]]; then
        say_skip "hugepages: this kernel offers none of 2 MiB; DPDK runs with --no-huge"
        return
    fi
    [[ $want != auto ]] || want=$HUGEPAGES_DEFAULT
    have=$(<"$HUGEPAGES_FILE")
    if ((have >= want)); then
        say_skip "hugepages: $have of 2 MiB are reserved"
        return
    fi
    if ((EUID != 0)) || [[ ! -w $HUGEPAGES_FILE ]]; then
        say_skip "hugepages: reserving $want takes root on the host (echo $want > $HUGEPAGES_FILE); $have are reserved"
        return
    fi
    # By itself setup takes at most a quarter of the memory that is free; a number given by hand is taken as it is.
    free_mib=$(awk '/^MemAvailable:/ { printf "%d", $2 / 1024 }' /proc/meminfo)
    if [[ $asked == auto ]] && (((want - have) * 2 > free_mib / 4)); then
        want=$((have + free_mib / 8))
        if ((want - have < 16)); then
            say_skip "hugepages: only $free_mib MiB of memory are available; $have are reserved"
            return
        fi
    fi
    if ! { echo "$want" >"$HUGEPAGES_FILE"; } 2>>"$SAY_LOG"; then
        say_skip "hugepages: the kernel did not allow it (a container?); $have are reserved"
        return
    fi
    got=$(<"$HUGEPAGES_FILE")
    if ((got > have)); then
        say_did "hugepages: $got of 2 MiB are reserved, before it were $have (until the next boot; undo: echo $have > $HUGEPAGES_FILE)"
    else
        say_skip "hugepages: memory is too fragmented, $got are reserved"
    fi
    if ! grep -qs ' /dev/hugepages hugetlbfs ' /proc/mounts; then
        if mkdir -p /dev/hugepages 2>>"$SAY_LOG" && mount -t hugetlbfs none /dev/hugepages 2>>"$SAY_LOG"; then
            say_did "hugepages: mounted /dev/hugepages (undo: umount /dev/hugepages)"
        else
            say_skip "hugepages: /dev/hugepages could not be mounted; DPDK uses --in-memory"
        fi
    fi
}
