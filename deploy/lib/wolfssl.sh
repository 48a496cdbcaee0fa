# shellcheck shell=bash
# wolfSSL, static and fast, built from Debian 13's source package on Debian 12 and 13 alike. Debian's own binary is built
# without the assembly of AES, SHA and RSA, and is 5 to 30 times slower.

WOLFSSL_SERIES=5.7.2   # the upstream version wanted
WOLFSSL_RECIPE=1       # raise it when something below changes that the flags do not show
WOLFSSL_NEED_MIB=500   # sources, objects and the installed library
WOLFSSL_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# No opensslextra: it keeps the state of every handshake alive. certgen stays off: bypost makes keys, not certificates.
# ticket-nonce-malloc: without it a server whose tickets have a nonce of more than 8 bytes ends the connection.
WOLFSSL_FLAGS=(
    --enable-static --disable-shared --with-pic
    --disable-examples --disable-crypttests --disable-benchmark
    --enable-intelasm --enable-aesni
    --enable-sp=yes,asm --enable-sp-asm --enable-sp-math-all
    --enable-ed25519 --enable-curve25519
    --enable-tls13 --enable-sni --enable-session-ticket --enable-ticket-nonce-malloc
    --enable-keygen --enable-pwdbased --enable-pkcs8
)
# ALWAYS_VERIFY_CB: DANE decides in the callback even where the chain is good. GETRANDOM: seeds come from the system call
# instead of opening /dev/urandom for each session.
WOLFSSL_CFLAGS="-O2 -g1 -fPIC -fno-omit-frame-pointer -DWOLFSSL_ALWAYS_VERIFY_CB -DWOLFSSL_GETRANDOM"

# The stamp without the line of the Debian revision: what must be equal for the cached library to be used again.
wolfssl_recipe() {
    printf 'recipe %s\nseries %s\nmachine %s\nconfigure %s\ncflags %s\n' \
        "$WOLFSSL_RECIPE" "$WOLFSSL_SERIES" "$(uname -m)" "${WOLFSSL_FLAGS[*]}" "$WOLFSSL_CFLAGS"
}

# wolfssl_mirrors: prints deb-src lines for trixie on the mirrors that this machine itself uses.
wolfssl_mirrors() {
    local site label main='' security=''
    if [[ -n ${BYPOST_DEBIAN_MIRROR:-} ]]; then
        main=$BYPOST_DEBIAN_MIRROR
    else
        while IFS=' ' read -r label site; do
            case $label in
            Debian) [[ -n $main ]] || main=$site ;;
            Debian-Security) [[ -n $security ]] || security=$site ;;
            esac
        done < <(apt-get indextargets --format '$(LABEL) $(SITE)' 'Origin: Debian' 'Created-By: Packages' 2>/dev/null)
    fi
    [[ -n $main ]] || return 1
    printf 'deb-src [signed-by=%s] %s trixie main\n' "$WOLFSSL_KEYRING" "$main"
    [[ -z $security ]] || printf 'deb-src [signed-by=%s] %s trixie-security main\n' "$WOLFSSL_KEYRING" "$security"
}

# wolfssl_fetch DIR: puts the unpacked, patched source into DIR/wolfssl-*, its Debian version into DIR/version.
wolfssl_fetch() {
    local dir=$1 dsc
    local -a apt_opts=(
        -o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=$dir/parts" -o "Dir::State::Lists=$dir/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Languages=none
        -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o APT::Update::Error-Mode=any
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false
    )
    mkdir -p "$dir/parts" "$dir/lists/partial"
    if ! wolfssl_mirrors >"$dir/sources.list"; then
        # The lists are empty (container images delete them): after an update apt knows its mirrors again.
        if ((EUID == 0)); then say_log_run apt-get update || true; fi
        wolfssl_mirrors >"$dir/sources.list" || say_die "apt knows of no Debian mirror on this machine" \
            "run 'apt-get update', or name a mirror: BYPOST_DEBIAN_MIRROR=<address of the mirror> deploy/setup"
    fi
    say_log_run cat "$dir/sources.list"
    if ! say_log_run apt-get "${apt_opts[@]}" update; then
        # A Debian 12 that was never upgraded lacks the keys of Debian 13; its own updates bring them.
        if ((EUID == 0)) && grep -q -e NO_PUBKEY -e "public key is not available" "$SAY_LOG"; then
            say_now "upgrading debian-archive-keyring, which lacks the keys of Debian 13"
            say_log_run apt-get update || true
            say_log_run apt-get install -y --no-install-recommends --only-upgrade debian-archive-keyring || true
        fi
        if ! say_log_run apt-get "${apt_opts[@]}" update; then
            say_log_tail 6
            say_die "the index of Debian 13's source packages could not be fetched or its signature did not verify" \
                "check the network and the mirror; a mirror without 'trixie' needs BYPOST_DEBIAN_MIRROR=<another mirror> deploy/setup"
        fi
    fi
    if ! (cd "$dir" && say_log_run apt-get "${apt_opts[@]}" -o APT::Get::Only-Source=true -t trixie --download-only source wolfssl); then
        say_log_tail 6
        say_die "the source package of wolfSSL could not be fetched" "see the log; a passing network fault is mended by running deploy/setup again"
    fi
    dsc=$(find "$dir" -maxdepth 1 -name 'wolfssl_*.dsc' | sort | tail -n 1)
    # apt has verified the archive's signature over the index, and the index's hash of every file fetched.
    if [[ -z $dsc ]] || ! say_log_run dpkg-source -x "$dsc" "$dir/src"; then
        say_log_tail 8
        say_die "the source package of wolfSSL could not be unpacked or patched" "see the log; then run deploy/setup again"
    fi
    basename -- "$dsc" .dsc | sed 's/^wolfssl_//' >"$dir/version"
    [[ $(<"$dir/version") == "$WOLFSSL_SERIES"* ]] || say_die "Debian 13 offers wolfSSL $(<"$dir/version"), bypost is made for $WOLFSSL_SERIES" \
        "take a newer bypost, or set WOLFSSL_SERIES in deploy/lib/wolfssl.sh and run all tests"
}

# wolfssl_check PREFIX DIR: compiles and runs the known answers against the library in PREFIX.
wolfssl_check() {
    local prefix=$1 dir=$2
    say_log_run gcc -O2 -Wall -I"$prefix/include" -o "$dir/wolfssl-check" "$SETUP_LIB/wolfssl-check.c" "$prefix/lib/libwolfssl.a" -lm -lpthread &&
        say_log_run "$dir/wolfssl-check" --speed
}

# wolfssl_setup CACHE REFRESH: makes CACHE/wolfssl hold the library; REFRESH=1 fetches and builds even when it is there.
wolfssl_setup() {
    local cache=$1 refresh=$2 prefix=$1/wolfssl dir free started=$SECONDS
    if [[ $refresh == 0 && -f $prefix/lib/libwolfssl.a && -f $prefix/stamp ]] &&
        [[ $(grep -v '^debian ' "$prefix/stamp") == "$(wolfssl_recipe)" ]]; then
        say_skip "wolfSSL: $(sed -n 's/^debian //p' "$prefix/stamp") is in $prefix"
        return
    fi
    [[ $(uname -m) == x86_64 ]] || say_die "this machine is a $(uname -m); the fast wolfSSL is for x86_64" \
        "use an x86_64 machine, or build with -Dwolfssl=system"
    [[ -w $cache ]] || say_die "$cache cannot be written" "run deploy/setup as root once, or set BYPOST_CACHE to a directory of your own"
    free=$(say_free_mib "$cache")
    ((free >= WOLFSSL_NEED_MIB)) || say_die "$cache has $free MiB free, building wolfSSL takes $WOLFSSL_NEED_MIB" \
        "free some space, or set BYPOST_CACHE to a directory on a larger disk"

    # What an interrupted run left behind.
    find "$cache" -maxdepth 1 -name 'wolfssl-build.*' -exec rm -rf -- {} +
    dir=$(mktemp -d "$cache/wolfssl-build.XXXXXX")
    say_now "wolfSSL: fetching the source package of Debian 13"
    wolfssl_fetch "$dir"
    say_now "wolfSSL: building $(<"$dir/version") with $(nproc) processes, about a minute"
    if ! (
        cd "$dir/src" &&
            say_log_run autoreconf -fi &&
            say_log_run ./configure --prefix="$prefix" --libdir="$prefix/lib" "${WOLFSSL_FLAGS[@]}" CC=gcc CFLAGS="$WOLFSSL_CFLAGS" &&
            say_log_run make -j"$(nproc)" &&
            say_log_run make install DESTDIR="$dir/stage"
    ); then
        say_log_tail 15
        say_die "wolfSSL did not build" "see the log; memory or disk running out is the usual reason"
    fi
    wolfssl_check "$dir/stage$prefix" "$dir" || {
        say_log_tail 10
        say_die "the wolfSSL that was built gives wrong answers" "see the log; the library was not installed"
    }
    { wolfssl_recipe && printf 'debian %s\n' "$(<"$dir/version")"; } >"$dir/stage$prefix/stamp"
    rm -rf -- "$dir/old"
    [[ ! -e $prefix ]] || mv -- "$prefix" "$dir/old"
    mv -- "$dir/stage$prefix" "$prefix"
    say_did "wolfSSL: $(<"$dir/version") is in $prefix ($((SECONDS - started)) s)"
    sed -n 's/^speed: /           /p' "$SAY_LOG" | tail -n 4
    rm -rf -- "$dir"
}
