# shellcheck shell=bash
# Mail servers for the interoperation tests that Debian lets nobody install beside Postfix: unpacked into the cache, never installed.
# The tests run them in a mount namespace of their own, over this machine's files.

SERVERS_PACKAGES=(exim4-daemon-light exim4-base opensmtpd)

# servers_setup CACHE: makes CACHE/servers hold their files.
servers_setup() {
    local target=$1/servers dir
    local -a libraries missing
    local name
    if [[ -f $target/stamp && $(<"$target/stamp") == "$SETUP_DEBIAN ${SERVERS_PACKAGES[*]}" ]]; then
        say_skip "mail servers for the tests: they are in $target"
        return
    fi
    ((EUID == 0)) || say_die "the mail servers of the tests are not in $target, and fetching them takes root" "run it as root: sudo deploy/setup --servers"
    dir=$(mktemp -d "$1/servers.XXXXXX")
    if packages_lists_are_absent; then packages_update; fi
    if ! (cd "$dir" && say_log_run apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download "${SERVERS_PACKAGES[@]}"); then
        packages_update
        if ! (cd "$dir" && say_log_run apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 download "${SERVERS_PACKAGES[@]}"); then
            say_log_tail 6
            rm -rf -- "$dir"
            say_die "the packages ${SERVERS_PACKAGES[*]} could not be fetched" "see the log; a passing network fault is mended by running it again"
        fi
    fi
    mapfile -t libraries < <(packages_runtime_of "${SERVERS_PACKAGES[@]}")
    packages_read_installed
    mapfile -t missing < <(packages_missing "${libraries[@]}")
    if ((${#missing[@]})); then
        packages_install "${missing[@]}" || {
            say_log_tail 6
            say_die "apt could not install ${missing[*]}" "see the log, then run it again"
        }
    fi
    mkdir "$dir/root"
    for name in "$dir"/*.deb; do
        say_log_run dpkg-deb -x "$name" "$dir/root"
    done
    # A package may still say /lib; laid over this machine's files it would hide the link that /lib is.
    if [[ -d $dir/root/lib ]]; then
        cp -a -- "$dir/root/lib/." "$dir/root/usr/lib/"
        rm -rf -- "$dir/root/lib"
    fi
    printf '%s\n' "$SETUP_DEBIAN ${SERVERS_PACKAGES[*]}" >"$dir/root/stamp"
    rm -rf -- "$target"
    mv -- "$dir/root" "$target"
    rm -rf -- "$dir"
    say_did "mail servers for the tests: ${SERVERS_PACKAGES[*]} in $target"
}
