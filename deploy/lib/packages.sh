# shellcheck shell=bash
# The Debian packages by name, for 12 and 13, and how they are installed: no recommended ones, no question, no daemon started
# or enabled, no package removed. "a|b" means the first one that the release has.

PACKAGES_RUN=(
    'redis-server|valkey-server'
    librte-meta-net librte-meta-mempool librte-meta-bus # drivers, which DPDK loads by itself
    dpdk                                                # dpdk-devbind.py
    ca-certificates iproute2 ethtool procps
    dns-root-data # the trust anchor of enable_dane
    python3 libbpf1 pci.ids kmod # deploy/nic
)
# Libraries: those that bypost links. For --runtime-only the run-time packages are read from what these depend on.
# nettle-dev: on Debian 12 libunbound.pc asks for it and its package does not.
PACKAGES_LIBRARY=(
    libdpdk-dev libbpf-dev libxdp-dev libhiredis-dev libevent-dev libunbound-dev nettle-dev libfyaml-dev libjansson-dev libyajl-dev
    'libmsgpack-c-dev|libmsgpack-dev' libidn2-dev libpcre2-dev libjemalloc-dev libcurl4-openssl-dev zlib1g-dev
)
PACKAGES_BUILD=(
    gcc libc6-dev make autoconf automake libtool meson ninja-build pkg-config
    clang                           # deploy/nic's XDP program
    dpkg-dev debian-archive-keyring # wolfSSL comes as a source package
)
PACKAGES_TEST=(
    libcmocka-dev libssl-dev libclang-rt-dev clang-format clang-tidy
    python3 python3-dkim python3-aiosmtpd python3-redis python3-jsonschema
    postfix unbound nftables
    knot python3-cryptography # test_policy: a signed zone, a test authority
    redis-tools jq nodejs node-redis # deploy/examples/clients
    prometheus # promtool judges /metrics and its rules
    logrotate
    opendkim opendkim-tools libmail-dkim-perl # other readers of DKIM; bench/endtoend signs Postfix's mail by opendkim
    libgmime-3.0-dev                          # another reader of MIME
    valgrind
)
# Packages that bring services, some of them only as dependencies. One that was there before is left as it is.
PACKAGES_DAEMON=(redis-server valkey-server postfix unbound knot dpdk rdma-core ibacm prometheus opendkim)

PACKAGES_NAMED_MAX=12 # more are told by their number
PACKAGES_NEED_MIB_ALL=2600
PACKAGES_NEED_MIB_RUN=700
PACKAGES_POLICY=/usr/sbin/policy-rc.d
PACKAGES_POLICY_SAVED=/usr/sbin/policy-rc.d.before-bypost
PACKAGES_POLICY_MARK='bypost deploy/setup: starts no daemon while packages are installed'

declare -A PACKAGES_INSTALLED=()

packages_read_installed() {
    local name status
    PACKAGES_INSTALLED=()
    while read -r name status; do
        [[ $status == installed ]] && PACKAGES_INSTALLED[$name]=1
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null)
    return 0
}

# packages_missing CHOICE...: prints each choice of which no alternative is installed.
packages_missing() {
    local choice name
    for choice; do
        for name in ${choice//|/ }; do
            [[ -n ${PACKAGES_INSTALLED[$name]:-} ]] && continue 2
        done
        printf '%s\n' "$choice"
    done
}

# packages_name CHOICE...: prints for each choice the first alternative that apt can install; without one, the choice itself.
# One question to apt for all of them: each costs up to a second.
packages_name() {
    local choice name
    local -A candidate=()
    while read -r name; do candidate[$name]=1; done < <(
        # shellcheck disable=SC2048,SC2086
        apt-cache policy ${*//|/ } 2>/dev/null | awk '/^[^ ].*:$/ { name = substr($1, 1, length($1) - 1) } /^  Candidate: [^(]/ { print name }'
    )
    for choice; do
        for name in ${choice//|/ }; do
            [[ -z ${candidate[$name]:-} ]] || break
        done
        [[ -n ${candidate[$name]:-} ]] || name=$choice'|'
        printf '%s\n' "$name"
    done
}

# packages_runtime_of CHOICE...: prints the libraries, themselves not -dev, that the -dev packages of this release depend on.
packages_runtime_of() {
    # shellcheck disable=SC2048,SC2086
    apt-cache depends --important ${*//|/ } 2>/dev/null |
        sed -n 's/^ *|\?\(Pre\)\?Depends: \([a-z0-9.+-]*\).*/\2/p' | grep '^lib' | grep -v -e '-dev$' | sort -u
}

# packages_resolve CHOICE...: sets `names` to what apt can install and `absent` to the choices that it cannot.
packages_resolve() {
    local name
    names=() absent=()
    while read -r name; do
        if [[ $name == *'|' ]]; then absent+=("${name%|}"); else names+=("$name"); fi
    done < <(packages_name "$@")
}

packages_update() {
    say_now "packages: reading the package lists (apt-get update)"
    say_log_run apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any update ||
        say_warn "apt-get update could not read all of the machine's sources; going on with what it has"
}

# Container images delete the lists. Lists that are merely old are read again when an installation fails.
packages_lists_are_absent() {
    [[ -z $(find /var/lib/apt/lists -maxdepth 1 -name '*Release' 2>/dev/null) ]]
}

packages_policy_begin() {
    packages_policy_end # what a killed run left behind
    [[ ! -e $PACKAGES_POLICY && ! -L $PACKAGES_POLICY ]] || mv -- "$PACKAGES_POLICY" "$PACKAGES_POLICY_SAVED"
    printf '#!/bin/sh\n# %s\nexit 101\n' "$PACKAGES_POLICY_MARK" >"$PACKAGES_POLICY"
    chmod 755 "$PACKAGES_POLICY"
}

packages_policy_end() {
    if [[ -f $PACKAGES_POLICY ]] && grep -qF "$PACKAGES_POLICY_MARK" "$PACKAGES_POLICY"; then
        rm -f -- "$PACKAGES_POLICY"
    fi
    if [[ -e $PACKAGES_POLICY_SAVED || -L $PACKAGES_POLICY_SAVED ]]; then
        mv -- "$PACKAGES_POLICY_SAVED" "$PACKAGES_POLICY"
    fi
}

packages_install() {
    DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none \
        say_log_run apt-get install -y --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# packages_disable PACKAGE: its services do not start at boot either; bypost's own instances are started by bypost's scripts.
packages_disable() {
    local unit script
    while read -r unit; do
        deb-systemd-helper disable "$unit" >>"$SAY_LOG" 2>&1 || true
    done < <(dpkg -L "$1" | sed -n 's|^\(/usr\)\?/lib/systemd/system/\([^/]*\.\(service\|socket\|path\|timer\)\)$|\2|p')
    while read -r script; do
        update-rc.d "$script" disable >>"$SAY_LOG" 2>&1 || true
    done < <(dpkg -L "$1" | sed -n 's|^/etc/init.d/\(..*\)$|\1|p')
    if [[ -d /run/systemd/system ]]; then systemctl daemon-reload >>"$SAY_LOG" 2>&1 || true; fi
}

# packages_setup all|run: installs what is missing.
packages_setup() {
    local group=$1 name need free
    local -a wanted missing libraries=() names=() absent=() fresh=() asleep=()
    packages_read_installed
    if [[ $group == run ]]; then
        wanted=("${PACKAGES_RUN[@]}")
    else
        wanted=("${PACKAGES_RUN[@]}" "${PACKAGES_LIBRARY[@]}" "${PACKAGES_BUILD[@]}" "${PACKAGES_TEST[@]}")
    fi

    # Postfix would replace the machine's own mail system. Only some tests and comparisons want it.
    if [[ $group == all && -z ${PACKAGES_INSTALLED[postfix]:-} ]]; then
        name=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' 2>/dev/null |
            awk '$1 == "installed" && / mail-transport-agent/ && !n++ { print $2 }')
        if [[ -n $name ]]; then
            mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | grep -vx postfix)
            say_skip "packages: postfix, because it would replace $name; the tests that need it are skipped"
        fi
    fi

    mapfile -t missing < <(packages_missing "${wanted[@]}")
    if [[ $group == run ]]; then
        mapfile -t libraries < <(packages_runtime_of "${PACKAGES_LIBRARY[@]}")
        # Without lists apt knows none of them, and they are named after the update below.
        if ((${#libraries[@]})); then
            mapfile -t -O "${#missing[@]}" missing < <(packages_missing "${libraries[@]}")
        else
            missing+=("${PACKAGES_LIBRARY[@]}")
        fi
    fi
    if ((${#missing[@]} == 0)); then
        say_skip "packages: all $((${#wanted[@]} + ${#libraries[@]})) are installed"
        return
    fi
    ((EUID == 0)) || say_die "${#missing[@]} packages are missing and installing them takes root: ${missing[*]}" "run it as root: sudo deploy/setup"
    [[ $group == run ]] && need=$PACKAGES_NEED_MIB_RUN || need=$PACKAGES_NEED_MIB_ALL
    # A handful of missing packages does not need the room of all of them.
    ((${#missing[@]} > 10)) || need=$((need / 5))
    free=$(say_free_mib /var/cache/apt)
    ((free >= need)) || say_die "the disk has $free MiB free, the ${#missing[@]} missing packages take up to $need" "free some space, then run deploy/setup again"

    if packages_lists_are_absent; then packages_update; fi
    if [[ $group == run ]]; then
        mapfile -t libraries < <(packages_runtime_of "${PACKAGES_LIBRARY[@]}")
        mapfile -t missing < <(packages_missing "${wanted[@]}" "${libraries[@]}")
    fi
    packages_resolve "${missing[@]}"
    if ((${#absent[@]})); then
        packages_update
        packages_resolve "${missing[@]}"
    fi
    ((${#absent[@]} == 0)) || say_die "apt knows no package named ${absent[*]}" \
        "the machine's sources must name the component 'main' of Debian $SETUP_DEBIAN; see /etc/apt/sources.list and /etc/apt/sources.list.d"

    for name in "${PACKAGES_DAEMON[@]}"; do
        [[ -n ${PACKAGES_INSTALLED[$name]:-} ]] || fresh+=("$name")
    done
    if ((${#names[@]} <= PACKAGES_NAMED_MAX)); then
        say_now "packages: installing ${names[*]}"
    else
        say_now "packages: installing ${#names[@]} (named in $SAY_LOG)"
    fi
    packages_policy_begin
    trap packages_policy_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [[ " ${names[*]} " == *" postfix "* ]]; then
        # Answered beforehand, or debconf would ask; "Local only" listens on nothing outside even if somebody starts it.
        debconf-set-selections <<<'postfix postfix/main_mailer_type select Local only' >>"$SAY_LOG" 2>&1 || true
        debconf-set-selections <<<'postfix postfix/mailname string localhost' >>"$SAY_LOG" 2>&1 || true
    fi
    if ! packages_install "${names[@]}"; then
        # The usual reason: the mirror moved on since the lists were read.
        packages_update
        if ! packages_install "${names[@]}"; then
            say_log_tail 12
            say_die "apt could not install the packages" \
                "read the lines above; 'apt-get -f install' mends a half-done installation, then run deploy/setup again"
        fi
    fi
    packages_read_installed
    for name in "${fresh[@]}"; do
        [[ -z ${PACKAGES_INSTALLED[$name]:-} ]] || { packages_disable "$name" && asleep+=("$name"); }
    done
    packages_policy_end
    trap - EXIT INT TERM HUP
    say_did "packages: ${#names[@]} installed"
    ((${#asleep[@]} == 0)) || say_did "packages: the services of ${asleep[*]} were neither started nor enabled"
}
