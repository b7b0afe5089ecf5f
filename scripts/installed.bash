# Where things are installed, and how the daemon is found; sourced by install and uninstall.
# shellcheck shell=bash disable=SC2034

PREFIX=${PREFIX:-$HOME/.local}
DESTDIR=${DESTDIR-}

bin=$PREFIX/bin
man=$PREFIX/share/man/man1
bash_completion=$PREFIX/share/bash-completion/completions/wtd-client
zsh_completion=$PREFIX/share/zsh/site-functions/_wtd-client
fish_completion=$PREFIX/share/fish/vendor_completions.d/wtd-client.fish
units=${UNITDIR:-${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user}

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

[[ $PREFIX == /* ]] || fail "PREFIX has to be an absolute path, and is $PREFIX"
[[ $units == /* ]] || fail "UNITDIR has to be an absolute path, and is $units"

user_manager_answers() {
    command -v systemctl >/dev/null && timeout 5 systemctl --user show-environment >/dev/null 2>&1
}

# The process id of a daemon that a client started, so that systemd knows nothing of it; empty when there is none.
started_by_a_client() {
    local status
    [[ -x $bin/wtd-client ]] || return 0
    status=$("$bin/wtd-client" --no-start status --json 2>/dev/null) || return 0
    if grep -Eq '"socket_from": *"self"' <<<"$status"; then
        sed -n 's/.*"pid": *\([0-9]\+\).*/\1/p' <<<"$status"
    fi
}

# Ends the daemon with process id $1. It answers everyone before it closes its socket.
stop_daemon() {
    kill -TERM "$1" 2>/dev/null || return 0
    timeout 15 tail --pid="$1" -f /dev/null || fail "wtd (process $1) does not end"
    echo "stopped wtd (process $1)"
}
