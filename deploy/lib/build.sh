# shellcheck shell=bash
# Configures and compiles bypost with meson, optimised (-O2) and with debug symbols.

# build_source_of DIR: prints the source tree that a meson build directory belongs to.
build_source_of() {
    sed -n 's/.*"source": "\([^"]*\)".*/\1/p' "$1/meson-info/meson-info.json" 2>/dev/null || true
}

# build_setup REPO DIR PREFIX_OF_WOLFSSL
build_setup() {
    local repo=$1 dir=$2 wolfssl=$3 started=$SECONDS old marker
    local -a options=(--buildtype=debugoptimized "-Dwolfssl_prefix=$wolfssl")
    [[ -n $(command -v meson) && -n $(command -v ninja) ]] ||
        say_die "meson or ninja is not installed" "run deploy/setup without --runtime-only"
    if [[ -e $dir/meson-private ]]; then
        old=$(build_source_of "$dir")
        if [[ $old != "$repo" ]]; then
            say_now "build: $dir was made for ${old:-another tree}; it is made anew"
            rm -rf -- "$dir"
        fi
    elif [[ -d $dir && -n $(ls -A -- "$dir") ]]; then
        say_die "$dir has files in it that are not a meson build" "remove it, or choose another: BYPOST_BUILD=DIR deploy/setup"
    fi
    mkdir -p -- "$dir" 2>/dev/null || true
    [[ -w $dir ]] ||
        say_die "$dir cannot be written" "run deploy/setup as the owner of the tree, or choose another: BYPOST_BUILD=DIR deploy/setup"

    marker=$dir/.bypost-options
    if [[ ! -f $dir/build.ninja || $(cat "$marker" 2>/dev/null) != "${options[*]}" ]]; then
        say_now "build: configuring $dir"
        if ! build_configure "$repo" "$dir" "${options[@]}"; then
            say_log_tail 12
            say_die "meson could not configure bypost" "read the lines above; when a library is not found, run deploy/setup without --no-packages"
        fi
        printf '%s\n' "${options[*]}" >"$marker"
    fi
    if [[ $(ninja -C "$dir" -n 2>/dev/null) == *'no work to do'* ]]; then
        say_skip "build: $dir is up to date"
        return
    fi
    say_now "build: compiling in $dir"
    if ! say_log_run ninja -C "$dir"; then
        # A build directory of another meson or compiler version cannot always be brought up to date.
        if grep -q -e 'has been generated with' -e 'Regenerate' "$SAY_LOG" && rm -rf -- "$dir" &&
            build_configure "$repo" "$dir" "${options[@]}" && say_log_run ninja -C "$dir"; then
            printf '%s\n' "${options[*]}" >"$marker"
        else
            grep -A 12 -e '^FAILED' -e 'error:' "$SAY_LOG" | sed -n '1,40s/^/    | /p' >&2 || true
            say_die "bypost did not compile" "read the lines above"
        fi
    fi
    say_did "build: bypost is in $dir ($((SECONDS - started)) s)"
}

build_configure() {
    local repo=$1 dir=$2
    shift 2
    if [[ -f $dir/build.ninja ]]; then
        say_log_run meson setup --reconfigure "$dir" "$repo" "$@" && return
        rm -rf -- "$dir"
    fi
    say_log_run meson setup "$dir" "$repo" "$@"
}
